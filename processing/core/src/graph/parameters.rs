//! From the configuration of a graph to what each module's `init` gets.

use super::{Graph, ModuleConfiguration, Parameter};

/// Keys and values, as `init` gets them.
pub type Parameters = Vec<(String, String)>;

/// A parameter that must be given is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "operation `{operation}` needs the parameter `{parameter}`, and the configuration has no value for it"
)]
pub struct ParameterError {
    /// The operation's name.
    pub operation: String,
    /// The parameter's id.
    pub parameter: String,
}

impl Graph {
    /// What `init` of `operation` gets: each declared parameter under its name, with the configured value or
    /// its default (AIO.md §2.2). A key matches a parameter's id, or else its name.
    ///
    /// # Errors
    /// A required parameter without a value.
    pub fn parameters(
        &self,
        operation: &str,
        settings: &[(String, String)],
    ) -> Result<Parameters, ParameterError> {
        let mut parameters = Vec::new();
        for (id, parameter) in self.declared(operation) {
            let value = settings
                .iter()
                .find(|(key, _)| key == id)
                .or_else(|| settings.iter().find(|(key, _)| *key == parameter.name))
                .map(|(_, value)| value)
                .or(parameter.default.as_ref());
            match value {
                Some(value) => parameters.push((parameter.name.clone(), value.clone())),
                None if parameter.required => {
                    let (operation, parameter) = (operation.to_owned(), id.clone());
                    return Err(ParameterError { operation, parameter });
                }
                None => {}
            }
        }
        Ok(parameters)
    }

    /// The configured keys that no operation of the graph has a parameter for.
    pub fn unused<'a>(&self, settings: &'a [(String, String)]) -> Vec<&'a str> {
        let known = |key: &str| {
            let all = self.module_configurations.iter().flat_map(|c| &c.parameters);
            all.into_iter().any(|(id, parameter)| id == key || parameter.name == key)
        };
        settings.iter().map(|(key, _)| key.as_str()).filter(|key| !known(key)).collect()
    }

    fn declared(&self, operation: &str) -> impl Iterator<Item = &(String, Parameter)> {
        let of_it = move |c: &&ModuleConfiguration| c.name == operation;
        self.module_configurations.iter().filter(of_it).flat_map(|c| &c.parameters)
    }
}
