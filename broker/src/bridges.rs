//! The bridges of graphs: what leads to and from systems other than this broker.

use bridge::{Instance, Inward, Outward, Unusable};
use config::{GraphPlan, System};

/// Whether the endpoints of a graph can be used as they are.
///
/// # Errors
/// One cannot.
pub fn check(plan: &GraphPlan<'_>) -> Result<(), Unusable> {
    let instance = |node: &str| Instance {
        namespace: plan.id.namespace.clone(),
        graph: plan.id.name.clone(),
        node: node.to_owned(),
        process: String::new(),
    };
    for source in &plan.sources {
        if let System::Remote(endpoint) = &source.system {
            let data_sources = source.data_sources.iter().map(|&text| text.to_owned()).collect();
            let instance = instance(source.node);
            bridge::source(Inward { endpoint: (**endpoint).clone(), data_sources, instance })?;
        }
    }
    for to in &plan.destinations {
        if let System::Remote(endpoint) = &to.system {
            let (endpoint, target) = ((**endpoint).clone(), to.data_destination.to_owned());
            bridge::destination(Outward { endpoint, target, output: None, instance: instance(to.node) })?;
        }
    }
    Ok(())
}
