//! Remote calls of guests, `command-invoker` (AIO.md §1.5, §8): a request is published, and its answer waited for.
//!
//! What is published where is worked out here; whoever embeds the host carries it ([`Invoker`]).

use std::time::Duration;

use bytes::Bytes;
use processing_core::time::Hlc;
use tokio::runtime::{Handle, RuntimeFlavor};
use wasmtime::component::Resource;

use crate::bindings::wasm_graph::processor::hybrid_logical_clock::{HybridLogicalClock, Timespec};
use crate::bindings::wasm_graph::processor::{command_invoker, rpc_types};
use crate::host::State;

/// How long an answer is waited for when the guest does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// A guest that waits gets this much of its deadline back, to say what it makes of the silence.
const DEADLINE_MARGIN: Duration = Duration::from_millis(20);
/// Keys that begin so belong to the protocol.
const RESERVED: &str = "__";
/// Longest topic, bytes.
const TOPIC_BYTES_MAX: usize = 65_535;

/// A remote call, as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Where the request goes.
    pub topic: String,
    /// Where the answer comes.
    pub response_topic: String,
    /// What is asked.
    pub payload: Bytes,
    /// The guest's own user properties.
    pub user_properties: Vec<(String, String)>,
    /// How long the answer is waited for.
    pub timeout: Duration,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer.
    pub payload: Bytes,
    /// Its user properties, all of them.
    pub user_properties: Vec<(String, String)>,
    /// When it was made, by its own account.
    pub timestamp: Option<Hlc>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody answered in time.
    #[error("nobody answered in time")]
    Timeout,
    /// The request cannot be published.
    #[error("the request cannot be published")]
    Refused,
    /// The broker is ending.
    #[error("the broker is ending")]
    Cancelled,
}

/// Carries remote calls.
pub trait Invoker: Send + Sync {
    /// The client identifier that calls are made under: part of their response topics.
    fn client_id(&self) -> &str;

    /// Publishes a call and waits for its answer, at most its timeout. Called on a thread that may wait.
    ///
    /// # Errors
    /// There is no answer.
    fn invoke(&self, call: Call) -> Result<Answer, CallError>;
}

type Pairs = Vec<(String, String)>;

/// `command-request-builder`.
#[derive(Debug, Clone, Default)]
pub struct RequestBuilder(Request);

/// `command-request`.
#[derive(Debug, Clone, Default)]
pub struct Request {
    payload: Bytes,
    user_properties: Pairs,
    tokens: Pairs,
    timeout: Option<Duration>,
}

/// `command-invoker-options-builder`.
#[derive(Debug, Clone, Default)]
pub struct OptionsBuilder(Options);

/// `command-invoker-options`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    request_topic_pattern: String,
    response_topic_pattern: Option<String>,
    command_name: String,
    topic_namespace: Option<String>,
    tokens: Pairs,
    response_topic_prefix: Option<String>,
    response_topic_suffix: Option<String>,
}

/// `command-invoker`.
#[derive(Debug)]
pub struct CommandInvoker(Options);

impl Options {
    /// The topics of a request and of its answer.
    fn topics(&self, client_id: &str, tokens: &Pairs) -> Option<(String, String)> {
        let resolve = |pattern: &str| resolve(pattern, &self.command_name, client_id, [tokens, &self.tokens]);
        let join = |parts: [Option<&str>; 3]| parts.into_iter().flatten().collect::<Vec<_>>().join("/");
        let request =
            resolve(&join([self.topic_namespace.as_deref(), Some(&self.request_topic_pattern), None]))?;
        let (prefix, suffix) = (self.response_topic_prefix.as_deref(), self.response_topic_suffix.as_deref());
        let response = match (&self.response_topic_pattern, prefix.or(suffix)) {
            (Some(pattern), _) => resolve(&join([self.topic_namespace.as_deref(), Some(pattern), None]))?,
            (None, Some(_)) => resolve(&join([prefix, Some(&request), suffix]))?,
            (None, None) => format!("clients/{client_id}/{request}"),
        };
        (request != response).then_some((request, response))
    }
}

/// A topic pattern with its `{tokens}` filled in; `None` when one has no value, or the result is no topic.
fn resolve(pattern: &str, command: &str, client_id: &str, tokens: [&Pairs; 2]) -> Option<String> {
    let value = |name: &str| {
        let named = tokens
            .into_iter()
            .flatten()
            .find(|(key, _)| key == name || key.strip_prefix("ex:") == Some(name));
        let known = match name {
            "commandName" => Some(command),
            "invokerClientId" => Some(client_id),
            _ => None,
        };
        named.map(|(_, value)| value.as_str()).or(known).filter(|value| !value.is_empty())
    };
    let mut topic = String::new();
    let mut rest = pattern;
    while let Some((literal, tail)) = rest.split_once('{') {
        let (name, tail) = tail.split_once('}')?;
        topic.push_str(literal);
        topic.push_str(value(name.strip_prefix("ex:").unwrap_or(name))?);
        rest = tail;
    }
    topic.push_str(rest);
    let is_topic = !topic.is_empty()
        && topic.len() <= TOPIC_BYTES_MAX
        && !topic.contains(['+', '#', '\0', '{', '}'])
        && topic.split('/').all(|level| !level.is_empty());
    is_topic.then_some(topic)
}

/// What the answer's `__stat` says; `None` for success (AIO.md §8).
fn failure(answer: &Answer) -> Option<rpc_types::RpcError> {
    use rpc_types::RpcError;
    let find = |name: &str| {
        answer.user_properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    let Some(status) = find("__stat") else { return Some(RpcError::HeaderMissing) };
    let of_application = find("__apErr").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    Some(match (status, find("__propName"), find("__propVal")) {
        ("200" | "204", ..) => return None,
        ("400", Some(_), Some(_)) | ("415" | "505", ..) => RpcError::HeaderInvalid,
        ("400", Some(_), None) => RpcError::HeaderMissing,
        ("400", None, _) => RpcError::PayloadInvalid,
        ("408", ..) => RpcError::Timeout,
        ("422", ..) => RpcError::InvocationException,
        ("500", ..) if of_application => RpcError::ExecutionException,
        ("500", Some(_), _) => RpcError::InternalLogicError,
        ("503", ..) => RpcError::StateInvalid,
        (other, ..) if other.parse::<u16>().is_err() => RpcError::HeaderInvalid,
        _ => RpcError::UnknownError,
    })
}

/// Runs `work`, which waits, without holding up the runtime that we may be called from.
fn waiting<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    }
}

type Built<T> = wasmtime::Result<Result<Resource<T>, rpc_types::RpcError>>;

impl State {
    /// A changed copy of a builder, as a resource of its own.
    fn rebuilt<T: Clone + Send + 'static>(
        &mut self,
        of: &Resource<T>,
        change: impl FnOnce(&mut T),
    ) -> Built<T> {
        let mut copy = self.table.get(of)?.clone();
        change(&mut copy);
        Ok(Ok(self.table.push(copy)?))
    }

    fn forget<T: Send + 'static>(&mut self, resource: Resource<T>) -> wasmtime::Result<()> {
        self.table.delete(resource)?;
        Ok(())
    }
}

impl rpc_types::Host for State {}

impl rpc_types::HostCommandRequest for State {
    fn drop(&mut self, request: Resource<Request>) -> wasmtime::Result<()> {
        self.forget(request)
    }
}

impl rpc_types::HostCommandRequestBuilder for State {
    fn new(&mut self) -> wasmtime::Result<Resource<RequestBuilder>> {
        Ok(self.table.push(RequestBuilder::default())?)
    }
    fn payload(&mut self, this: Resource<RequestBuilder>, payload: Vec<u8>) -> Built<RequestBuilder> {
        self.rebuilt(&this, |builder| builder.0.payload = payload.into())
    }
    fn custom_user_data(&mut self, this: Resource<RequestBuilder>, data: Pairs) -> Built<RequestBuilder> {
        if data.iter().any(|(key, _)| key.starts_with(RESERVED)) {
            return Ok(Err(rpc_types::RpcError::ConfigurationInvalid));
        }
        self.rebuilt(&this, |builder| builder.0.user_properties = data)
    }
    fn topic_tokens(&mut self, this: Resource<RequestBuilder>, tokens: Pairs) -> Built<RequestBuilder> {
        self.rebuilt(&this, |builder| builder.0.tokens = tokens)
    }
    fn timeout(&mut self, this: Resource<RequestBuilder>, secs: u64, nanos: u32) -> Built<RequestBuilder> {
        if nanos >= 1_000_000_000 || (secs, nanos) == (0, 0) {
            return Ok(Err(rpc_types::RpcError::ConfigurationInvalid));
        }
        self.rebuilt(&this, |builder| builder.0.timeout = Some(Duration::new(secs, nanos)))
    }
    fn build(&mut self, this: Resource<RequestBuilder>) -> Built<Request> {
        let request = self.table.get(&this)?.0.clone();
        Ok(Ok(self.table.push(request)?))
    }
    fn drop(&mut self, builder: Resource<RequestBuilder>) -> wasmtime::Result<()> {
        self.forget(builder)
    }
}

impl rpc_types::HostCommandInvokerOptions for State {
    fn drop(&mut self, options: Resource<Options>) -> wasmtime::Result<()> {
        self.forget(options)
    }
}

impl rpc_types::HostCommandInvokerOptionsBuilder for State {
    fn new(&mut self) -> wasmtime::Result<Resource<OptionsBuilder>> {
        Ok(self.table.push(OptionsBuilder::default())?)
    }
    fn request_topic_pattern(
        &mut self,
        this: Resource<OptionsBuilder>,
        text: String,
    ) -> Built<OptionsBuilder> {
        self.rebuilt(&this, |builder| builder.0.request_topic_pattern = text)
    }
    fn response_topic_pattern(
        &mut self,
        this: Resource<OptionsBuilder>,
        text: String,
    ) -> Built<OptionsBuilder> {
        self.rebuilt(&this, |builder| builder.0.response_topic_pattern = Some(text))
    }
    fn command_name(&mut self, this: Resource<OptionsBuilder>, text: String) -> Built<OptionsBuilder> {
        self.rebuilt(&this, |builder| builder.0.command_name = text)
    }
    fn topic_namespace(&mut self, this: Resource<OptionsBuilder>, text: String) -> Built<OptionsBuilder> {
        self.rebuilt(&this, |builder| builder.0.topic_namespace = Some(text))
    }
    fn topic_token_map(&mut self, this: Resource<OptionsBuilder>, tokens: Pairs) -> Built<OptionsBuilder> {
        self.rebuilt(&this, |builder| builder.0.tokens = tokens)
    }
    fn response_topic_prefix(
        &mut self,
        this: Resource<OptionsBuilder>,
        text: String,
    ) -> Built<OptionsBuilder> {
        self.rebuilt(&this, |builder| builder.0.response_topic_prefix = Some(text))
    }
    fn response_topic_suffix(
        &mut self,
        this: Resource<OptionsBuilder>,
        text: String,
    ) -> Built<OptionsBuilder> {
        self.rebuilt(&this, |builder| builder.0.response_topic_suffix = Some(text))
    }
    fn build(&mut self, this: Resource<OptionsBuilder>) -> Built<Options> {
        let options = self.table.get(&this)?.0.clone();
        if options.request_topic_pattern.is_empty() || options.command_name.is_empty() {
            return Ok(Err(rpc_types::RpcError::BuildError));
        }
        Ok(Ok(self.table.push(options)?))
    }
    fn drop(&mut self, builder: Resource<OptionsBuilder>) -> wasmtime::Result<()> {
        self.forget(builder)
    }
}

impl command_invoker::HostCommandInvoker for State {
    fn invoke(
        &mut self,
        this: Resource<CommandInvoker>,
        request: Resource<Request>,
    ) -> wasmtime::Result<Result<rpc_types::CommandResponse, rpc_types::RpcError>> {
        // The request is the guest's no longer, whatever becomes of it.
        let Request { payload, user_properties, tokens, timeout } = self.table.delete(request)?;
        let options = &self.table.get(&this)?.0;
        let Some(invoker) = self.invoker.clone() else { return Ok(Err(rpc_types::RpcError::StateInvalid)) };
        let Some((topic, response_topic)) = options.topics(invoker.client_id(), &tokens) else {
            return Ok(Err(rpc_types::RpcError::ConfigurationInvalid));
        };
        let longest = self.longest_wait().saturating_sub(DEADLINE_MARGIN);
        let timeout = timeout.unwrap_or(TIMEOUT_DEFAULT).min(longest);
        let call = Call { topic, response_topic, payload, user_properties, timeout };
        let answer = match waiting(|| invoker.invoke(call)) {
            Ok(answer) => answer,
            Err(CallError::Timeout) => return Ok(Err(rpc_types::RpcError::Timeout)),
            Err(CallError::Refused) => return Ok(Err(rpc_types::RpcError::ClientError)),
            Err(CallError::Cancelled) => return Ok(Err(rpc_types::RpcError::Cancellation)),
        };
        if let Some(failure) = failure(&answer) {
            return Ok(Err(failure));
        }
        let own = answer.user_properties.into_iter().filter(|(key, _)| !key.starts_with(RESERVED));
        let timestamp = answer.timestamp.map(|time| HybridLogicalClock {
            timestamp: Timespec { secs: time.secs, nanos: time.nanos },
            counter: time.counter,
            node_id: time.node.to_string(),
        });
        let payload = answer.payload.to_vec();
        Ok(Ok(rpc_types::CommandResponse { payload, custom_user_data: own.collect(), timestamp }))
    }
    fn drop(&mut self, invoker: Resource<CommandInvoker>) -> wasmtime::Result<()> {
        self.forget(invoker)
    }
}

impl command_invoker::Host for State {
    fn new_invoker(&mut self, options: Resource<Options>) -> Built<CommandInvoker> {
        let options = self.table.delete(options)?;
        Ok(Ok(self.table.push(CommandInvoker(options))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(change: impl FnOnce(&mut Options)) -> Option<(String, String)> {
        let mut options = Options {
            request_topic_pattern: "plant/{machine}/{commandName}".to_owned(),
            command_name: "read".to_owned(),
            tokens: vec![("machine".to_owned(), "press".to_owned())],
            ..Options::default()
        };
        change(&mut options);
        options.topics("forebay", &Vec::new())
    }

    #[test]
    fn topics_are_made_of_patterns_and_tokens() {
        let made = |request: &str, response: &str| Some((request.to_owned(), response.to_owned()));
        assert_eq!(topics(|_| ()), made("plant/press/read", "clients/forebay/plant/press/read"));
        assert_eq!(
            topics(|o| o.topic_namespace = Some("site".to_owned())),
            made("site/plant/press/read", "clients/forebay/site/plant/press/read")
        );
        assert_eq!(
            topics(|o| o.response_topic_pattern = Some("answers/{invokerClientId}".to_owned())),
            made("plant/press/read", "answers/forebay")
        );
        assert_eq!(
            topics(|o| (o.response_topic_prefix, o.response_topic_suffix) =
                (Some("a".to_owned()), Some("b".to_owned()))),
            made("plant/press/read", "a/plant/press/read/b")
        );
        assert_eq!(topics(|o| o.tokens.clear()), None, "a token without a value");
        assert_eq!(topics(|o| o.request_topic_pattern = "a/#".to_owned()), None);
        assert_eq!(topics(|o| o.request_topic_pattern = "a/{x".to_owned()), None);
        assert_eq!(topics(|o| o.tokens[0].1 = "a/+".to_owned()), None, "no wildcard by way of a token");
    }

    #[test]
    fn statuses_are_the_errors_of_the_contract() {
        use rpc_types::RpcError;
        let told = |pairs: &[(&str, &str)]| {
            let user_properties = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            failure(&Answer { payload: Bytes::new(), user_properties, timestamp: None })
        };
        assert!(told(&[("__stat", "200")]).is_none());
        assert!(matches!(told(&[]), Some(RpcError::HeaderMissing)));
        assert!(matches!(told(&[("__stat", "x")]), Some(RpcError::HeaderInvalid)));
        assert!(matches!(told(&[("__stat", "400")]), Some(RpcError::PayloadInvalid)));
        assert!(matches!(
            told(&[("__stat", "500"), ("__apErr", "true")]),
            Some(RpcError::ExecutionException)
        ));
        assert!(matches!(told(&[("__stat", "500")]), Some(RpcError::UnknownError)));
        assert!(matches!(told(&[("__stat", "503")]), Some(RpcError::StateInvalid)));
    }
}
