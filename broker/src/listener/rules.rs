//! The rules of a BrokerAuthorization (AIO.md §5.9), checked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_core::topic;
use config::resource::access::{AuthorizationRule, BrokerAuthorization, BrokerMethod, StateStoreMethod};
use config::resource::common::{KeyType, OperationalMode};

use crate::auth::policy::{KeyPattern, Policy, Rule};

/// The policy of a resource.
///
/// # Errors
/// Names the rule, and what cannot be meant.
pub fn policy(spec: &BrokerAuthorization) -> Result<Policy, String> {
    let policies = &spec.authorization_policies;
    let rules = policies.rules.iter().enumerate().map(|(at, rule)| checked(rule, at));
    let rules = rules.collect::<Result<Vec<_>, String>>()?;
    Ok(Policy { cache: policies.cache == OperationalMode::Enabled, rules })
}

fn checked(rule: &AuthorizationRule, at: usize) -> Result<Rule, String> {
    let principals = &rule.principals;
    let mut made = Rule {
        attributes: principals.attributes.clone(),
        client_ids: principals.client_ids.clone(),
        usernames: principals.usernames.clone(),
        ..Rule::default()
    };
    for (index, resource) in rule.broker_resources.iter().enumerate() {
        let place = format!("`rules[{at}].brokerResources[{index}]`");
        resource.client_ids.iter().chain(&resource.topics).try_for_each(|t| check_template(t, &place))?;
        resource.topics.iter().try_for_each(|topic| check_topic(topic, &place))?;
        match resource.method {
            BrokerMethod::Connect => made.connect.push(resource.client_ids.clone()),
            BrokerMethod::Publish => made.publish.extend_from_slice(&resource.topics),
            BrokerMethod::Subscribe => made.subscribe.extend_from_slice(&resource.topics),
        }
        if resource.method != BrokerMethod::Connect && resource.topics.is_empty() {
            return Err(format!("{place} allows nothing: it names no `topics`"));
        }
    }
    for (index, resource) in rule.state_store_resources.iter().enumerate() {
        let place = format!("`rules[{at}].stateStoreResources[{index}]`");
        for key in &resource.keys {
            check_template(key, &place)?;
            let pattern = key_pattern(resource.key_type, key).map_err(|fault| format!("{place} {fault}"))?;
            let (reads, writes) = match resource.method {
                StateStoreMethod::Read => (true, false),
                StateStoreMethod::Write => (false, true),
                StateStoreMethod::ReadWrite => (true, true),
            };
            made.read.extend(reads.then(|| pattern.clone()));
            made.write.extend(writes.then_some(pattern));
        }
    }
    Ok(made)
}

fn key_pattern(kind: KeyType, key: &str) -> Result<KeyPattern, &'static str> {
    Ok(match kind {
        KeyType::Pattern => KeyPattern::Pattern(key.to_owned()),
        KeyType::String => KeyPattern::String(key.to_owned()),
        KeyType::Binary => {
            KeyPattern::Binary(STANDARD.decode(key).map_err(|_| "has a binary key that is not in base64")?)
        }
    })
}

/// Whether everything between `{principal.` and `}` can be filled in.
fn check_template(template: &str, place: &str) -> Result<(), String> {
    for part in template.split("{principal.").skip(1) {
        let name = part.split_once('}').map(|(name, _)| name);
        let known = name.is_some_and(|name| {
            matches!(name, "clientId" | "username")
                || name.strip_prefix("attributes.").is_some_and(|attribute| !attribute.is_empty())
        });
        if !known {
            return Err(format!(
                "{place} has `{template}`, but only {{principal.clientId}}, {{principal.username}} and \
                 {{principal.attributes.NAME}} are filled in"
            ));
        }
    }
    Ok(())
}

fn check_topic(template: &str, place: &str) -> Result<(), String> {
    let mut plain = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{principal.") {
        plain.push_str(before);
        plain.push('x');
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    topic::validate_filter(&plain).map_err(|error| format!("{place} has `{template}`: {}", error.what()))
}
