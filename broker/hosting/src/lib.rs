//! From the plan of a graph to what runs it: for every broker that hosts graphs.
//!
//! `config` reads resources and knows nothing of how they are carried out; `processing` carries out and knows no resources.
//! Whoever hosts graphs needs both, and this between them.

use std::collections::HashMap;

use config::resource::Settings;
use config::resource::registry::{Credentials, RegistryHost};
use config::resource::secret::ConfigMap;
use config::{GraphPlan, LinkPlan, RegistryPlan};
use processing::limits::Limits;
use processing::registry::{AUDIENCE, Auth, Endpoint, IdentitySource, Location, ManagedIdentity, PlainHttp};
use processing::runtime::{Flow, Stage};
use processing_core::engine::ALLOWED_LATENESS_MS;
use processing_core::graph::Link;
use processing_core::operator::Operator;

/// Where the artifacts of a registry are pulled from, and as whom.
pub fn endpoint(plan: &RegistryPlan<'_>) -> Endpoint {
    let auth = match &plan.credentials {
        Credentials::Anonymous => Auth::Anonymous,
        Credentials::Password { username, password } => {
            Auth::Basic { user: username.clone(), password: password.reveal().to_owned() }
        }
        Credentials::Identity { client_id, tenant, audience } => Auth::Identity(ManagedIdentity {
            source: identity_source(),
            client_id: client_id.clone(),
            tenant: tenant.clone(),
            audience: audience.clone().unwrap_or_else(|| AUDIENCE.to_owned()),
        }),
    };
    Endpoint {
        auth,
        plain_http: match (plan.plain_http, &plan.trusted_cas) {
            (Some(true), _) => PlainHttp::Allowed,
            // Whoever names certificates wants TLS, on this machine as well.
            (Some(false), _) | (None, Some(_)) => PlainHttp::Never,
            (None, None) => PlainHttp::OnLoopback,
        },
        trusted: plan.trusted_cas.as_ref().map(ConfigMap::joined).unwrap_or_default(),
        signers: plan.signers.clone(),
        mirrors: plan.mirrors.iter().map(location).collect(),
        ..Endpoint::new(location(plan.host))
    }
}

fn location(host: &RegistryHost) -> Location {
    match host {
        RegistryHost::Layout(path) => Location::Layout(path.clone()),
        RegistryHost::Remote { authority, prefix } => Location::Remote {
            host: authority.clone(),
            path_prefix: (!prefix.is_empty()).then(|| prefix.clone()),
        },
    }
}

/// Azure's services beside a program are named to it so.
fn identity_source() -> IdentitySource {
    match (std::env::var("IDENTITY_ENDPOINT"), std::env::var("IDENTITY_HEADER")) {
        (Ok(endpoint), Ok(header)) => IdentitySource::Beside { endpoint, header },
        _ => IdentitySource::Machine,
    }
}

/// What an operator of a graph may take, and what is logged of what it says.
pub fn limits(plan: &GraphPlan<'_>) -> Limits {
    let (settings, default) = (plan.settings, Limits::default());
    // Where its profile says nothing, it is logged as everything else is.
    let log_level =
        plan.profile.diagnostics.as_ref().and_then(|told| told.logs.level.of_everything().parse().ok());
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    Limits {
        memory_bytes_max: settings.memory_limit.map_or(default.memory_bytes_max, bytes),
        memory_soft_bytes: settings.memory_soft_limit.map(bytes),
        nn_bytes_max: settings.nn_memory_limit.map_or(default.nn_bytes_max, bytes),
        table_elements_max: settings.table_limit.map_or(default.table_elements_max, count),
        handles_max: settings.handle_limit.map_or(default.handles_max, count),
        metrics_max: settings.metric_limit.map_or(default.metrics_max, count),
        log_level,
        log_lines_per_second_max: settings.log_limit.unwrap_or(default.log_lines_per_second_max),
        call_max: settings.call_deadline.unwrap_or(default.call_max),
        inline_budget: settings.inline_budget.unwrap_or(default.inline_budget),
        ..default
    }
}

/// How long after its end a window still takes messages, milliseconds.
pub fn lateness_ms(settings: &Settings) -> u64 {
    let asked =
        settings.allowed_lateness.map(|lateness| u64::try_from(lateness.as_millis()).unwrap_or(u64::MAX));
    asked.unwrap_or(ALLOWED_LATENESS_MS)
}

/// Everything that a graph is made of, joined as its resource says. `checks` are for the connections in these places.
pub fn flow(plan: &GraphPlan<'_>, stages: Vec<Stage>, checks: HashMap<usize, Box<dyn Operator>>) -> Flow {
    let link = |(place, link): (usize, &LinkPlan<'_>)| Link {
        from: link.from,
        to: link.to,
        checked: checks.contains_key(&place),
    };
    Flow {
        name: plan.id.name.clone(),
        sources: plan.sources.iter().map(|source| source.node.to_owned()).collect(),
        stages,
        sinks: plan.destinations.iter().map(|destination| destination.node.to_owned()).collect(),
        links: plan.links.iter().enumerate().map(link).collect(),
        checks,
    }
}
