//! The address of `--listen`.

use std::net::SocketAddr;

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give an IP address and a port, such as 127.0.0.1:4040".to_owned())
}
