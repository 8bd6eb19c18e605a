//! `healthcheck`: asks the worker on this host whether it is alive, for container images without a shell or an HTTP client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;

use super::{Output, server, text, write_json};
use crate::model::humane;

/// ECS and Docker give a check a time-out of their own, ECS 5 s unless told otherwise; this one says what it waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Flags of `healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Where the worker listens, as it was told
    #[arg(long, value_name = "ADDR", env = "TASKSET_GUARDIAN_LISTEN", default_value = "127.0.0.1:9464")]
    listen: SocketAddr,

    /// Another worker than the one on this host
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    healthy: bool,
    /// What the worker said, or why nobody did.
    said: String,
}

/// Exit code 1 also when nobody answers: 2 has no meaning to those who run health checks.
pub(super) async fn healthcheck(args: &HealthcheckArgs, output: Output) -> anyhow::Result<ExitCode> {
    let server = args.server.clone().unwrap_or_else(|| format!("http://{}", reachable(args.listen)));
    let url = format!("{}/healthz", server.trim_end_matches('/'));
    let late = || anyhow!("no answer within {}", humane(PATIENCE));
    let asked = tokio::time::timeout(PATIENCE, server::get(&url)).await.map_err(|_| late()).flatten();
    let answer = match asked {
        Ok((status, body)) => {
            let text: String = String::from_utf8_lossy(&body).trim().chars().take(300).collect();
            let said = if status.is_success() || status.is_server_error() { text } else { format!("{status}: {text}") };
            Answer { healthy: status.is_success(), said }
        }
        Err(error) => Answer { healthy: false, said: format!("{url}: {error:#}") },
    };
    write(&answer, output, &mut text::out())?;
    Ok(if answer.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(answer: &Answer, output: Output, out: &mut dyn io::Write) -> io::Result<()> {
    match output {
        Output::Json => write_json(answer, out),
        Output::Text if answer.healthy => writeln!(out, "healthy"),
        Output::Text => writeln!(out, "unhealthy: {}", super::text::printable(&answer.said)),
    }
}

/// Who listens on all addresses is asked on the loopback one.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_wildcard_address_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:80", "[::1]:80"),
            ("127.0.0.1:9464", "127.0.0.1:9464"),
            ("10.0.0.7:9464", "10.0.0.7:9464"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
