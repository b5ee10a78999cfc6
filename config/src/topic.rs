//! Topic filters of sources and topic templates of destinations (AIO.md §7.1, §7.2).
//!
//! This knows how they are written, not how they are matched at speed: that is the router's.

use std::fmt;

/// The longest topic, in bytes: what an MQTT string can hold.
const TOPIC_BYTES_MAX: usize = 65_535;

/// An MQTT topic filter, shared or not. Prints as a client would subscribe to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter {
    /// The group of a shared subscription.
    pub group: Option<String>,
    /// The filter itself.
    pub filter: String,
}

impl TopicFilter {
    /// Reads a filter. A shared one is written `$share/<group>/<filter>`, as MQTT has it, or
    /// `$shared/<group>/<filter>`, as AIO has it.
    ///
    /// # Errors
    /// Says what is wrong with it, in words that follow "`x` is `text`, but".
    pub fn parse(text: &str) -> Result<Self, String> {
        let shared = text.strip_prefix("$share/").or_else(|| text.strip_prefix("$shared/"));
        let (group, filter) = match shared {
            None => (None, text),
            Some(rest) => {
                let (group, filter) =
                    rest.split_once('/').ok_or("a shared subscription needs a group and a filter")?;
                if group.is_empty() || group.contains(['+', '#']) {
                    return Err(
                        "the group of a shared subscription must not be empty or hold wildcards".to_owned()
                    );
                }
                (Some(group.to_owned()), filter)
            }
        };
        check_filter(filter)?;
        Ok(Self { group, filter: filter.to_owned() })
    }

    /// The same filter, shared by a group unless it is already.
    #[must_use]
    pub fn shared_by(&self, group: &str) -> Self {
        Self { group: self.group.clone().or_else(|| Some(group.to_owned())), filter: self.filter.clone() }
    }

    /// Whether the filter matches `topic` ([MQTT-4.7.1-2], [MQTT-4.7.1-3], [MQTT-4.7.2-1]).
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.filter.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for part in self.filter.split('/') {
            match (part, levels.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (part, Some(level)) if part == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "$share/{group}/{}", self.filter),
            None => f.write_str(&self.filter),
        }
    }
}

fn check_filter(filter: &str) -> Result<(), String> {
    check_length(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('+') && level != "+" {
            return Err("`+` must stand alone between slashes".to_owned());
        }
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err("`#` must stand alone at the end".to_owned());
        }
    }
    Ok(())
}

/// Checks a topic that is published to.
pub(crate) fn check_topic(topic: &str) -> Result<(), String> {
    check_length(topic)?;
    if topic.contains(['+', '#']) {
        return Err("a topic that is published to holds no `+` or `#`".to_owned());
    }
    Ok(())
}

fn check_length(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(format!("is longer than {TOPIC_BYTES_MAX} bytes"));
    }
    if text.contains('\0') {
        return Err("must not hold a NUL".to_owned());
    }
    Ok(())
}

/// The topic of a destination, with or without variables: `${inputTopic}`, `${inputTopic.N}`,
/// `${outputTopic}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    InputTopic,
    /// The n-th level of the input topic, from 0.
    InputLevel(usize),
    OutputTopic,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Says what is wrong with it, in words that follow "`x` is `text`, but".
    pub fn parse(text: &str) -> Result<Self, String> {
        check_topic(text)?;
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, tail)) = rest.split_once("${") {
            let (variable, tail) =
                tail.split_once('}').ok_or("the variable behind `${` is not closed by `}`")?;
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(variable_part(variable)?);
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The topic, if it has no variables.
    pub fn as_static(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Literal(topic)] => Some(topic),
            _ => None,
        }
    }

    /// The topic for a message that came on `input_topic` and to which the graph gave `output_topic`.
    ///
    /// Nothing when a variable has no value, or when the result is no topic that can be published to;
    /// the message is then dropped with a warning (AIO.md §7.2).
    pub fn render(&self, input_topic: &str, output_topic: Option<&str>) -> Option<String> {
        let mut topic = String::new();
        for part in &self.parts {
            topic.push_str(match part {
                Part::Literal(text) => text,
                Part::InputTopic => input_topic,
                Part::InputLevel(n) => {
                    input_topic.trim_matches('/').split('/').nth(*n).filter(|s| !s.is_empty())?
                }
                Part::OutputTopic => output_topic?,
            });
        }
        check_topic(&topic).ok().map(|()| topic)
    }
}

fn variable_part(variable: &str) -> Result<Part, String> {
    const KNOWN: &str = "`${inputTopic}`, `${inputTopic.1}` and so on, and `${outputTopic}`";
    match variable {
        "inputTopic" => return Ok(Part::InputTopic),
        "outputTopic" => return Ok(Part::OutputTopic),
        _ => {}
    }
    let Some(level) = variable.strip_prefix("inputTopic.") else {
        let name = crate::finding::quoted(&format!("${{{variable}}}"));
        return Err(format!("the variable {name} is not known; known are {KNOWN}"));
    };
    match level.parse::<usize>() {
        Ok(n @ 1..) if level.bytes().all(|b| b.is_ascii_digit()) => Ok(Part::InputLevel(n - 1)),
        _ => Err("the level behind `inputTopic.` must be a whole number from 1".to_owned()),
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(text),
            Part::InputTopic => f.write_str("${inputTopic}"),
            Part::InputLevel(n) => write!(f, "${{inputTopic.{}}}", n + 1),
            Part::OutputTopic => f.write_str("${outputTopic}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_mqtt() {
        for right in
            ["a", "a/b", "+", "#", "a/+/b", "a/#", "/", "$SYS/#", "a//b", "$share/g/a/#", "$shared/g/a"]
        {
            assert!(TopicFilter::parse(right).is_ok(), "{right}");
        }
        for wrong in
            ["", "a+", "a/#/b", "a#", "+a/b", "$share/g", "$share//a", "$share/g/", "$share/+/a", "a\0"]
        {
            assert!(TopicFilter::parse(wrong).is_err(), "{wrong}");
        }
        assert!(TopicFilter::parse(&"x".repeat(65_536)).is_err());
        assert_eq!(TopicFilter::parse("$shared/g/a/+").map(|f| f.to_string()), Ok("$share/g/a/+".to_owned()));
    }

    #[test]
    fn wildcards_match_as_mqtt_says() {
        let matches = |filter: &str, topic| TopicFilter::parse(filter).is_ok_and(|f| f.matches(topic));
        assert!(matches("a/#", "a"));
        assert!(matches("a/#", "a/b/c"));
        assert!(matches("+/b", "a/b"));
        assert!(matches("$share/g/a", "a"));
        assert!(!matches("+", "a/b"));
        assert!(!matches("a/+", "a"));
        assert!(!matches("#", "$SYS/x"));
    }

    #[test]
    fn a_template_takes_its_variables_from_the_topics() {
        let render = |text: &str, input, output| Template::parse(text).ok()?.render(input, output);
        assert_eq!(render("a/b", "x", None).as_deref(), Some("a/b"));
        assert_eq!(render("p/${inputTopic.2}", "/s/t/", None).as_deref(), Some("p/t"));
        assert_eq!(render("p/${inputTopic}", "s/t", None).as_deref(), Some("p/s/t"));
        assert_eq!(render("f/${outputTopic}", "s", Some("o")).as_deref(), Some("f/o"));
        assert_eq!(render("${inputTopic.1}${inputTopic.2}", "a/b", None).as_deref(), Some("ab"));
    }

    #[test]
    fn a_variable_without_a_value_renders_nothing() {
        let render = |text: &str, input, output| Template::parse(text).ok()?.render(input, output);
        assert_eq!(render("p/${inputTopic.3}", "s/t", None), None);
        assert_eq!(render("${outputTopic}", "s", None), None);
        assert_eq!(render("${outputTopic}", "s", Some("a/#")), None);
        assert_eq!(render("${inputTopic.1}", "/", None), None);
    }

    #[test]
    fn a_wrong_template_is_refused_with_the_reason() {
        let fault = |text: &str| Template::parse(text).err().unwrap_or_default();
        assert_eq!(
            fault("a/${topic}"),
            "the variable `${topic}` is not known; \
             known are `${inputTopic}`, `${inputTopic.1}` and so on, and `${outputTopic}`"
        );
        assert_eq!(fault("${inputTopic.0}"), "the level behind `inputTopic.` must be a whole number from 1");
        assert_eq!(fault("${inputTopic.+1}"), "a topic that is published to holds no `+` or `#`");
        assert_eq!(fault("${inputTopic"), "the variable behind `${` is not closed by `}`");
        assert_eq!(fault("a/#"), "a topic that is published to holds no `+` or `#`");
        assert_eq!(fault(""), "must not be empty");
        assert!(Template::parse("a/${inputTopic.99999999999999999999999}").is_err());
    }

    #[test]
    fn a_dollar_sign_alone_is_a_letter() {
        assert_eq!(
            Template::parse("a/$b/{c}").ok().and_then(|t| t.render("", None)).as_deref(),
            Some("a/$b/{c}")
        );
    }
}
