//! `forebay get subscriptions`: asks a running broker at its admin address.

use std::time::Duration;

use crate::cli;
use crate::listing::{self, Subscription};
use crate::serve::ServeError;

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for what is wanted, and prints it.
///
/// # Errors
/// No broker answers there, or with something else.
pub fn run(options: &cli::Get) -> Result<(), ServeError> {
    let cli::Get { admin, output, .. } = options;
    let failed = |why: String| {
        ServeError::Start(format!(
            "no broker answers on http://{admin} ({why}); start it with `forebay serve --admin {admin}`, \
             or say where it is with --admin"
        ))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ServeError::Start(error.to_string()))?;
    let text = runtime.block_on(fetch(&format!("http://{admin}/subscriptions"))).map_err(failed)?;
    match output {
        cli::Format::Json => println!("{text}"),
        cli::Format::Yaml => {
            let all: serde_json::Value =
                serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
            print!("{}", config::manifest::to_yaml(&all));
        }
        cli::Format::Table | cli::Format::Wide => {
            let subscriptions: Vec<Subscription> =
                serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
            print!("{}", listing::table(&subscriptions));
        }
    }
    Ok(())
}

async fn fetch(url: &str) -> Result<String, String> {
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build();
    let client = client.map_err(|error| error.to_string())?;
    let plain = |error: reqwest::Error| error.without_url().to_string();
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(plain)?;
    answer.text().await.map_err(plain)
}
