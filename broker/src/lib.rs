//! forebay: an MQTT broker that runs WebAssembly operator graphs inside its own message path.
//!
//! The process's life, read aloud: say what is wanted, check it, bind, say what is bound, wait, drain.
//!
//! A library only so far that what it reads from strangers can be [fuzzed](fuzzing); nobody else is meant to use it.

mod admin;
mod auth;
mod broker;
mod cli;
mod client;
mod clock;
mod connection;
mod control;
mod delivery;
mod demo;
pub mod fuzzing;
mod get;
mod graphs;
mod handshake;
mod health;
mod housekeeping;
mod identity;
mod inbound;
mod limits;
mod listener;
mod listing;
mod logs;
mod metrics;
mod operations;
mod ordered;
mod persistence;
mod pipeline;
mod reauthentication;
mod reconcile;
mod refresh;
mod reload;
mod replay;
mod route;
mod schemas;
mod self_check;
mod serve;
mod services;
#[cfg(test)]
mod simulation;
mod store_tools;
mod sys;
mod translate;
mod transport;
mod turn;
mod validate;
mod workbench;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Command, New};
use crate::control::commands;
use crate::serve::ServeError;

/// The whole program.
pub fn main() -> ExitCode {
    // With every feature there are two of them in the build; whoever names none takes this one. Nobody came before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = cli::Cli::parse();
    // What tells of one message after the other is no news at the workbench, where each is shown.
    let level = matches!(cli.command, Command::Test(_) | Command::Run(_)).then_some("warn");
    logs::start(level);
    let result = match cli.command {
        Command::Serve(options) => serve::run(&options),
        Command::Validate(options) => return validate::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Get(options) if options.what == "subscriptions" => get::run(&options),
        Command::Get(options) => return commands::run(commands::get(&options)),
        Command::Apply(options) => return commands::run(commands::apply(&options)),
        Command::Delete(options) => return commands::run(commands::delete(&options)),
        Command::Diff(options) => return commands::run(commands::diff(&options)),
        Command::Describe(options) => return commands::run(commands::describe(&options)),
        Command::Events(options) => return commands::run(commands::events(&options)),
        Command::Refresh(options) => return commands::run(commands::refresh(&options)),
        Command::Rollback(options) => return commands::run(commands::rollback(&options)),
        Command::Logs(options) => return commands::run(commands::logs(&options)),
        Command::Test(options) => return workbench::test(&options),
        Command::Run(options) => return workbench::run(&options),
        Command::New(New::Operator(options)) => return workbench::new(&options),
        Command::Passwd(options) => auth::passwd::run(&options).map_err(ServeError::Passwd),
        Command::Store(command) => return store_tools::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay: {error}");
            ExitCode::FAILURE
        }
    }
}
