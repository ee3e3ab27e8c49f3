//! Control as clients see it: what was committed, whoever changes what meanwhile.
//!
//! # Theory of operation
//! A job may take long, or wait for a disk or a datapath, and a client that only looks does not wait with it.
//! So looks are not jobs: they are done on a copy of control that has the committed state and shares all else
//! that can be shared. The copy is made when somebody looks for the first time after a commit; nothing can be
//! changed by it, as it is never lent to be.

use std::sync::{Arc, Mutex, PoisonError};

use crate::control::Control;
use crate::state::store::Gate;

/// The last copy, and what it takes to make the next.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    gate: Gate,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    /// The number of the state of the copy.
    number: u64,
    copy: Arc<Control>,
}

impl Seen {
    /// A view of control.
    pub(crate) fn of(control: &Control) -> Self {
        let gate = control.store.gate();
        let (number, state) = gate.committed();
        let copy = Arc::new(control.onlooker(gate.onlooker(), state));
        Self { gate, shared: Arc::new(Mutex::new(Shared { number, copy })) }
    }

    /// Control as it is now, but for what is not committed.
    pub(crate) fn now(&self) -> Arc<Control> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.number != self.gate.number() {
            let (number, state) = self.gate.committed();
            let copy = shared.copy.onlooker(self.gate.onlooker(), state);
            *shared = Shared { number, copy: Arc::new(copy) };
        }
        shared.copy.clone()
    }

    /// Notes what is not of the state and has changed.
    pub(crate) fn follow(&self, control: &Control) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = |control: &Control| {
            (control.has_private_mounts, control.cluster.as_ref().map(|cluster| cluster.changes))
        };
        if changes(&shared.copy) != changes(control) {
            let (number, state) = self.gate.committed();
            *shared = Shared { number, copy: Arc::new(control.onlooker(self.gate.onlooker(), state)) };
        }
    }
}
