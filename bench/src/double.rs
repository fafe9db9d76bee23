//! `bench-double`: Kong's double as a process, until standard input ends. Says its port.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command whose result is what it prints")]

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kong_double::{Consumer, Double, DoubleConfig, PluginConfig, Route};
use serde_json::Value as Json;

/// Runs Kong's double with one plugin on each of its routes.
#[derive(Debug, Parser)]
#[command(name = "bench-double", version)]
struct Cli {
    /// The plugin server's socket
    #[arg(long)]
    socket: PathBuf,
    /// File with what the plugin server's query command prints
    #[arg(long)]
    info: PathBuf,
    /// File with the plugin's configuration, in JSON
    #[arg(long)]
    config: PathBuf,
    /// Where requests go
    #[arg(long)]
    upstream: SocketAddr,
    /// So many routes, /0/, /1/ and so on; none: one for everything
    #[arg(long)]
    routes: Option<usize>,
    /// The only consumer
    #[arg(long)]
    consumer: String,
    /// The consumer's id
    #[arg(long)]
    consumer_id: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-double: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    let info: Json = serde_json::from_slice(&std::fs::read(cli.info)?)?;
    let plugin: Json = serde_json::from_slice(&std::fs::read(cli.config)?)?;
    let name = info["Plugins"][0]["Name"].as_str().ok_or("the plugin has no name")?.to_owned();
    let mut config = DoubleConfig::new(cli.socket, info);
    let route = |route: Route| route.plugin(PluginConfig::new(name.clone(), plugin.clone()));
    config.routes = match cli.routes {
        None => vec![route(Route::new("all", cli.upstream))],
        Some(count) => (0..count)
            .map(|number| {
                route(Route::new(format!("route {number}"), cli.upstream).paths([format!("/{number}/")]))
            })
            .collect(),
    };
    config.consumers.push(Consumer { id: cli.consumer_id, username: Some(cli.consumer), custom_id: None });
    let double = Double::start(config).await?;
    println!("{}", double.addr().port());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    double.shutdown().await;
    Ok(())
}
