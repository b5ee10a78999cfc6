//! Tokens of managed identities, and what Azure's registries give for them.
//!
//! The machine's own endpoint for identities gives a token for Azure's management (AIO.md §5.5, `audience`). The registry exchanges it
//! for a refresh token (`/oauth2/exchange`), and that for a token that may pull (`/oauth2/token`).

use std::fmt;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use serde::Deserialize;

use super::Cause;

/// Where tokens of a machine's identity come from.
#[derive(Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The metadata service that every virtual machine of Azure's has.
    Machine,
    /// A service beside this process, as `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` name it.
    Beside {
        /// Its address.
        endpoint: String,
        /// What it is to be shown.
        header: String,
    },
}

impl fmt::Debug for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("Machine"),
            Self::Beside { endpoint, .. } => f.debug_tuple("Beside").field(endpoint).finish(),
        }
    }
}

/// Who this machine is to Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// Where tokens come from.
    pub source: IdentitySource,
    /// Which of the identities of this machine, when it is not its own.
    pub client_id: Option<String>,
    /// The tenant, where one is named.
    pub tenant: Option<String>,
    /// For whom the token is made.
    pub audience: String,
}

/// For whom tokens are made when nobody says otherwise.
pub const AUDIENCE: &str = "https://management.azure.com/";

const MACHINE: &str = "http://169.254.169.254/metadata/identity/oauth2/token";
/// It is on this machine or nowhere.
const IDENTITY_MAX: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    refresh_token: Option<String>,
}

impl ManagedIdentity {
    /// A token of this identity.
    pub(super) async fn token(&self) -> Result<String, Cause> {
        let fault = |detail: String| Cause::Identity { detail };
        let (address, version) = match &self.source {
            IdentitySource::Machine => (MACHINE, "2018-02-01"),
            IdentitySource::Beside { endpoint, .. } => (endpoint.as_str(), "2019-08-01"),
        };
        let mut url = Url::parse(address).map_err(|_| {
            fault(format!("IDENTITY_ENDPOINT is `{}`, which is no address", address.escape_debug()))
        })?;
        url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", &self.audience);
        if let Some(client_id) = &self.client_id {
            url.query_pairs_mut().append_pair("client_id", client_id);
        }
        // Never by way of a proxy: it is for this machine only.
        let client = Client::builder().no_proxy().timeout(IDENTITY_MAX).tls_certs_only([]).build();
        let request = client.map_err(|error| fault(error.to_string()))?.get(url);
        let request = match &self.source {
            IdentitySource::Machine => request.header("Metadata", "true"),
            IdentitySource::Beside { header, .. } => request.header("X-IDENTITY-HEADER", header),
        };
        let response = request.send().await.map_err(|error| {
            fault(format!("the identity service of this machine does not answer: {}", error.without_url()))
        })?;
        let status = response.status();
        let answer = read(response).await?;
        match answer.and_then(|answer| answer.access_token) {
            Some(token) if status.is_success() => Ok(token),
            _ => Err(fault(format!(
                "the identity service of this machine gives no token: HTTP {}",
                status.as_u16()
            ))),
        }
    }

    /// A token that may pull, of the registry whose token service is at `realm`.
    pub(super) async fn exchange(
        &self,
        client: &Client,
        realm: &Url,
        service: &str,
        scope: &str,
    ) -> Result<String, Cause> {
        let own = self.token().await?;
        let mut exchange = realm.clone();
        exchange.set_path(&realm.path().replace("/oauth2/token", "/oauth2/exchange"));
        exchange.set_query(None);
        let mut form = vec![("grant_type", "access_token"), ("service", service), ("access_token", &own)];
        form.extend(self.tenant.as_deref().map(|tenant| ("tenant", tenant)));
        let refresh = post(client, exchange, &form).await?.refresh_token;
        let refresh = refresh.ok_or_else(|| denied("exchanges the token of this identity for none"))?;
        let form = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("scope", scope),
            ("refresh_token", &refresh),
        ];
        let access = post(client, realm.clone(), &form).await?.access_token;
        access.ok_or_else(|| denied("gives this identity no token to pull with"))
    }
}

fn denied(what: &str) -> Cause {
    Cause::Identity { detail: format!("the registry {what}") }
}

async fn post(client: &Client, url: Url, form: &[(&str, &str)]) -> Result<Answer, Cause> {
    // As a query writes its pairs a form does, too.
    let mut pairs = url.clone();
    pairs.set_query(None);
    pairs.query_pairs_mut().extend_pairs(form);
    let body = pairs.query().unwrap_or_default().to_owned();
    let request = client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
    let response = request
        .send()
        .await
        .map_err(|error| Cause::Unreachable { detail: error.without_url().to_string() })?;
    let status = response.status();
    match read(response).await? {
        Some(answer) if status.is_success() => Ok(answer),
        _ => Err(denied(&format!(
            "does not take the token of this identity: HTTP {}; it needs the role AcrPull there",
            status.as_u16()
        ))),
    }
}

/// What is answered, if it can be read; never quoted, for it may be a token.
async fn read(mut response: reqwest::Response) -> Result<Option<Answer>, Cause> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| Cause::Interrupted { detail: error.without_url().to_string() })?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(serde_json::from_slice(&bytes).ok())
}
