//! CloudEvents attributes on what goes out, as user properties or headers (AIO.md §7.4).

use config::resource::endpoint::CloudEventAttributes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::parcel::Parcel;

/// The attributes without which a message is no CloudEvent.
const REQUIRED: [&str; 4] = ["specversion", "type", "source", "id"];

/// Brings the attributes of a parcel up to date. `target` is the name of the destination; `subject` the topic it goes to.
pub fn apply(parcel: &mut Parcel, attributes: CloudEventAttributes, target: &str, subject: &str) {
    match attributes {
        CloudEventAttributes::Propagate
            if REQUIRED.iter().any(|name| parcel.user_property(name).is_none()) => {}
        CloudEventAttributes::Propagate => restate_content_type(parcel),
        CloudEventAttributes::CreateOrRemap => {
            let add = |parcel: &mut Parcel, name: &str, value: &dyn Fn() -> String| {
                if parcel.user_property(name).is_none() {
                    parcel.user_properties.push((name.to_owned(), value()));
                }
            };
            add(parcel, "specversion", &|| "1.0".to_owned());
            add(parcel, "type", &|| "ms.aio-dataflow.telemetry".to_owned());
            add(parcel, "source", &|| format!("aio://{target}"));
            add(parcel, "id", &|| Uuid::new_v4().to_string());
            add(parcel, "subject", &|| subject.to_owned());
            add(parcel, "time", &now);
            restate_content_type(parcel);
        }
    }
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

/// `datacontenttype` is the content type that the message goes out with.
fn restate_content_type(parcel: &mut Parcel) {
    const NAME: &str = "datacontenttype";
    let Some(content_type) = parcel.content_type.clone() else { return };
    match parcel.user_properties.iter_mut().find(|(name, _)| name == NAME) {
        Some((_, value)) => *value = content_type,
        None => parcel.user_properties.push((NAME.to_owned(), content_type)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(properties: &[(&str, &str)]) -> Parcel {
        let property = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let user_properties = properties.iter().map(property).collect();
        Parcel { user_properties, content_type: Some("application/json".to_owned()), ..Parcel::default() }
    }

    #[test]
    fn what_is_missing_is_made() {
        let mut event = parcel(&[("type", "mine"), ("datacontenttype", "text/plain")]);
        apply(&mut event, CloudEventAttributes::CreateOrRemap, "lake", "a/b");
        let value = |name| event.user_property(name).unwrap();
        assert_eq!((value("specversion"), value("type"), value("source")), ("1.0", "mine", "aio://lake"));
        assert_eq!((value("subject"), value("datacontenttype")), ("a/b", "application/json"));
        assert!(
            OffsetDateTime::parse(value("time"), &Rfc3339).is_ok() && Uuid::parse_str(value("id")).is_ok()
        );
    }

    #[test]
    fn what_is_no_cloud_event_is_passed_on_as_it_is() {
        let mut plain = parcel(&[("type", "mine"), ("id", "1"), ("source", "s")]);
        let before = plain.clone();
        apply(&mut plain, CloudEventAttributes::Propagate, "lake", "a/b");
        assert_eq!(plain, before);
        plain.user_properties.push(("specversion".to_owned(), "1.0".to_owned()));
        apply(&mut plain, CloudEventAttributes::Propagate, "lake", "a/b");
        assert_eq!(plain.user_property("datacontenttype"), Some("application/json"));
        assert_eq!(plain.user_property("time"), None);
    }
}
