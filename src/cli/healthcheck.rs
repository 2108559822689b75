//! `annals healthcheck`: requests `/readyz`, for containers without a shell.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::parse::address;

const TIMEOUT: Duration = Duration::from_secs(3);
/// The largest response that is read.
const RESPONSE_BYTES_MAX: u64 = 64 * 1024;

/// The arguments of `annals healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Address of the server; for an unspecified one (0.0.0.0), the loopback address is used
    #[arg(long, env = "ANNALS_LISTEN", value_name = "ANNALS_LISTEN", default_value = "127.0.0.1:8080",
          value_parser = address)]
    annals_listen: SocketAddr,

    /// Admin address of the server; if it has one, it is requested instead [default: none]
    #[arg(long, env = "ANNALS_ADMIN_LISTEN", value_name = "ANNALS_ADMIN_LISTEN", value_parser = address)]
    annals_admin_listen: Option<SocketAddr>,
}

/// Runs `annals healthcheck`.
pub async fn run(args: HealthcheckArgs) -> anyhow::Result<ExitCode> {
    // The system chooses the address if the port is 0, so it is unknown.
    let admin = args.annals_admin_listen.filter(|address| address.port() != 0);
    let mut address = admin.unwrap_or(args.annals_listen);
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let response = match tokio::time::timeout(TIMEOUT, request(address)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            eprintln!("{address} does not respond: {error}");
            return Ok(ExitCode::FAILURE);
        }
        Err(_) => {
            eprintln!("{address} does not respond within {} s", TIMEOUT.as_secs());
            return Ok(ExitCode::FAILURE);
        }
    };
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    println!("{body}");
    let ready = head.split_whitespace().nth(1) == Some("200");
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends a request of HTTP/1.0, whose response ends with the connection.
async fn request(address: SocketAddr) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut response = String::new();
    connection.take(RESPONSE_BYTES_MAX).read_to_string(&mut response).await?;
    Ok(response)
}
