//! How many sockets are open, in all and for each caller.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use glowplug_api::ErrorType;

use crate::answer::Problem;
use crate::host::Caller;
use crate::options::SocketOptions;

/// The open sockets of all workers.
#[derive(Debug)]
pub(crate) struct OpenSockets {
    sockets_max: usize,
    per_caller_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// Callers without any are not in it, so that it is no longer than `all`.
    callers: HashMap<String, usize, RandomState>,
}

/// The place of one open socket.
#[derive(Debug)]
pub(super) struct Seat {
    sockets: Arc<OpenSockets>,
    caller: String,
}

impl OpenSockets {
    pub(crate) fn new(options: &SocketOptions) -> Self {
        Self {
            sockets_max: options.sockets_max,
            per_caller_max: options.sockets_per_caller_max,
            open: Mutex::default(),
        }
    }

    /// A caller is its key, or its address where it has none.
    pub(super) fn seat(
        self: &Arc<Self>,
        caller: &Caller,
        address: IpAddr,
    ) -> Result<Seat, Problem> {
        let caller = match caller.key_id.as_str() {
            "" => address.to_string(),
            key_id => format!("key {key_id}"),
        };
        let mut open = self.lock();
        if open.all >= self.sockets_max {
            let detail = format!("{} websockets are open, as many as this node allows", open.all);
            return Err(Problem::new(ErrorType::TooManySockets, detail).temporary());
        }
        let of_caller = open.callers.entry(caller.clone()).or_default();
        if *of_caller >= self.per_caller_max {
            let detail =
                format!("this caller has {of_caller} websockets open, as many as it may have");
            return Err(Problem::new(ErrorType::TooManySockets, detail).temporary());
        }
        *of_caller += 1;
        open.all += 1;
        Ok(Seat { sockets: self.clone(), caller })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing panics between its two counts.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.sockets.lock();
        open.all -= 1;
        if let Some(of_caller) = open.callers.get_mut(&self.caller) {
            *of_caller -= 1;
            if *of_caller == 0 {
                open.callers.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_few_and_come_back() {
        let options =
            SocketOptions { sockets_max: 3, sockets_per_caller_max: 2, ..SocketOptions::default() };
        let sockets = Arc::new(OpenSockets::new(&options));
        let keyed = |key_id: &str| Caller { key_id: key_id.to_owned(), admin: false };
        let here = IpAddr::from([127, 0, 0, 1]);
        let first = sockets.seat(&keyed("a"), here).unwrap();
        let _second = sockets.seat(&keyed("a"), here).unwrap();
        let problem = sockets.seat(&keyed("a"), here).unwrap_err();
        assert_eq!(problem.kind, ErrorType::TooManySockets);
        assert!(problem.detail.contains("this caller has 2"), "{}", problem.detail);
        let _third = sockets.seat(&keyed(""), here).unwrap();
        let problem = sockets.seat(&keyed("b"), here).unwrap_err();
        assert!(problem.detail.starts_with("3 websockets"), "{}", problem.detail);
        drop(first);
        sockets.seat(&keyed("b"), here).unwrap();
        sockets.seat(&keyed("a"), here).unwrap();
        assert_eq!(sockets.lock().callers.len(), 2, "callers without a socket are forgotten");
    }
}
