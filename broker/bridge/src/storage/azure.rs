//! Containers of Azure's object stores: Data Lake Storage, and OneLake, which speaks the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::RemoteEndpoint;
use config::resource::common::Host;
use config::resource::endpoint::{
    DataLakeAuthentication, EndpointSettings, ManagedIdentity, OneLakePathType,
};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig,
};

use super::destination::Fault;

/// The endpoint or the container cannot be used.
pub const CONFIGURATION: &str = "DataflowObjectStoreTargetConfigurationError";
/// A file could not be written.
pub const SEND: &str = "DataflowObjectStoreTargetSendFailed";
const AUTHENTICATION: &str = "DataflowObjectStoreTargetAuthenticationFailed";
/// How long it may take to reach the store.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// A place in a container.
#[derive(Clone, Debug)]
pub struct Container {
    store: Arc<dyn ObjectStore>,
    /// What stands in front of every name.
    pub folder: Path,
    name: String,
}

impl Container {
    /// The place that `dataDestination` names: a container, and a folder in it if more follows.
    pub fn new(endpoint: &RemoteEndpoint, target: &str) -> Result<Self, String> {
        let (builder, container, folder) = match &endpoint.settings {
            EndpointSettings::DataLakeStorage(lake) => {
                let (container, folder) = split(target);
                let builder = match &lake.authentication {
                    DataLakeAuthentication::AccessToken(_) => {
                        let secret = endpoint.secret.as_ref();
                        let secret =
                            secret.ok_or("the Secret of `accessTokenSettings.secretRef` is missing")?;
                        let token = secret.text("accessToken");
                        let token = token.map_err(|fault| {
                            format!("the Secret of `accessTokenSettings.secretRef` {fault}")
                        })?;
                        let token = token.reveal().trim().trim_start_matches('?').to_owned();
                        account(&lake.host).with_config(AzureConfigKey::SasKey, token)
                    }
                    DataLakeAuthentication::SystemAssignedManagedIdentity(_) => account(&lake.host),
                    DataLakeAuthentication::UserAssignedManagedIdentity(identity) => {
                        account(&lake.host).with_client_id(&identity.client_id)
                    }
                };
                (builder, container, folder)
            }
            EndpointSettings::FabricOneLake(lake) => {
                let kind = match lake.one_lake_path_type {
                    OneLakePathType::Files => "Files",
                    OneLakePathType::Tables => "Tables",
                };
                let folder = format!("{}.Lakehouse/{kind}/{target}", lake.names.lakehouse_name);
                let builder = account(&lake.host);
                let builder = match &lake.authentication {
                    ManagedIdentity::SystemAssignedManagedIdentity(_) => builder,
                    ManagedIdentity::UserAssignedManagedIdentity(identity) => {
                        builder.with_client_id(&identity.client_id)
                    }
                };
                (builder, lake.names.workspace_name.as_str(), folder)
            }
            _ => return Err("it is no object store".to_owned()),
        };
        let folder = Path::parse(folder.trim_matches('/')).map_err(|error| {
            format!("`dataDestination` is `{target}`, which is no place to write to: {error}")
        })?;
        let store = builder.with_container_name(container).with_retry(retry()).build();
        let store = store.map_err(|error| format!("`host` cannot be used: {}", told(&error.to_string())))?;
        Ok(Self { store: Arc::new(store), folder, name: container.to_owned() })
    }

    /// The store, for who writes more than files.
    #[cfg(feature = "delta")]
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// Whether it is there; a permission to write may be all that there is, so not everything can be told.
    pub async fn look(&self) -> Result<(), Fault> {
        let nothing = self.folder.clone().join(".forebay-is-it-there");
        match self.store.get(&nothing).await {
            Err(error) => match self.fault(&error) {
                // The container is there and the file is not, or may not be asked for.
                _ if says(&error, &["BlobNotFound", "AuthorizationPermissionMismatch"]) => Ok(()),
                fault => Err(fault),
            },
            Ok(_) => Ok(()),
        }
    }

    /// Writes a file, which is there as a whole or not at all.
    pub async fn write(&self, name: &str, bytes: Bytes) -> Result<(), Fault> {
        let options = PutOptions { mode: PutMode::Overwrite, ..PutOptions::default() };
        let path = self.folder.clone().join(name);
        let put = self.store.put_opts(&path, PutPayload::from_bytes(bytes), options).await;
        put.map(|_| ()).map_err(|error| self.fault(&error))
    }

    /// What is wrong, in AIO's words and ours.
    pub fn fault(&self, error: &Error) -> Fault {
        let why = told(&chain(error));
        match error {
            Error::NotFound { .. } => {
                Fault { code: CONFIGURATION, why: format!("there is no container `{}`: {why}", self.name) }
            }
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Fault {
                code: AUTHENTICATION,
                why: format!(
                    "the store does not let this data flow in; see its access token or identity: {why}"
                ),
            },
            _ => Fault { code: SEND, why },
        }
    }
}

fn split(target: &str) -> (&str, String) {
    let target = target.trim_matches('/');
    target.split_once('/').map_or((target, String::new()), |(container, rest)| (container, rest.to_owned()))
}

/// The account at `<account>.blob.core.windows.net`, or at `http://host:port/<account>` of something that stands in for it.
fn account(host: &Host) -> MicrosoftAzureBuilder {
    let written = host.as_str();
    let scheme = written.split_once("://").map_or("https", |(scheme, _)| scheme);
    let path = host.path().unwrap_or("").trim_matches('/');
    let account = match path.is_empty() {
        true => host.name().split('.').next().unwrap_or_default(),
        false => path.split('/').next().unwrap_or_default(),
    };
    let rest = written.split_once("://").map_or(written, |(_, rest)| rest).trim_end_matches('/');
    // Files of OneLake are reached at both of its names; only this one speaks as the others do.
    let rest = rest.replacen("onelake.dfs.", "onelake.blob.", 1);
    MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_endpoint(format!("{scheme}://{rest}"))
        .with_client_options(
            ClientOptions::new()
                .with_connect_timeout(CONNECT_MAX)
                .with_timeout(REQUEST_MAX)
                .with_allow_http(scheme == "http"),
        )
}

/// Waiting is done, and told of, by who writes.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 1, retry_timeout: REQUEST_MAX, backoff: BackoffConfig::default() }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

fn says(error: &Error, codes: &[&str]) -> bool {
    let text = chain(error);
    codes.iter().any(|code| text.contains(code))
}

/// Without what follows a `?` in addresses (there is an access token in it), on one line, and no longer than anybody reads.
pub fn told(text: &str) -> String {
    let mut clean = String::new();
    for word in text.split_whitespace() {
        let word = match word.split_once('?') {
            Some((before, after)) if after.contains('=') => before,
            _ => word,
        };
        if !clean.is_empty() {
            clean.push(' ');
        }
        clean.push_str(word);
        if clean.len() > 600 {
            clean.push('…');
            break;
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_tokens_are_not_told() {
        let told = told("Error performing PUT http://h:1/a/c/f?sv=2024&sig=SECRET%3D in 1ms\n <x>  y</x>");
        assert_eq!(told, "Error performing PUT http://h:1/a/c/f in 1ms <x> y</x>");
    }

    #[test]
    fn a_destination_is_a_container_and_what_follows() {
        assert_eq!(split("raw"), ("raw", String::new()));
        assert_eq!(split("/raw/line/1/"), ("raw", "line/1".to_owned()));
    }
}
