//! Host names, each looked up on a thread of its own. tokio's pool panics where no thread can be started, as at a
//! limit of processes; here that is an error of this request.

use std::net::ToSocketAddrs as _;
use std::{io, thread};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::oneshot;

pub(super) struct Resolver {
    /// What is sent is not encrypted, and may not leave this machine: any name server may say where a name below
    /// `localhost` leads.
    pub(super) only_this_machine: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let only_this_machine = self.only_this_machine;
        let (found, is_found) = oneshot::channel();
        let look_up = move || {
            // Nobody waits any more where the request's time was over.
            _ = found.send((name.as_str(), 0).to_socket_addrs());
        };
        let started = thread::Builder::new().name("dodo-resolver".into()).spawn(look_up);
        Box::pin(async move {
            started.map_err(|error| format!("no thread can be started: {error}"))?;
            let mut found: Vec<_> = is_found.await??.collect();
            found.retain(|address| !only_this_machine || address.ip().is_loopback());
            if found.is_empty() {
                let why = "it leads to another machine, and plain http would send the API key in the clear";
                return Err(io::Error::other(why).into());
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_leave_this_machine_goes_to_no_other_wherever_its_name_leads() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (leads_to, only_this_machine, is_taken) in [
            ("192.0.2.1", false, true),
            ("192.0.2.1", true, false),
            ("127.0.0.1", true, true),
            ("localhost", true, true),
        ] {
            let resolver = Resolver { only_this_machine };
            let resolved = runtime.block_on(resolver.resolve(leads_to.parse().unwrap()));
            assert_eq!(resolved.is_ok(), is_taken, "{leads_to}, {only_this_machine}");
        }
    }
}
