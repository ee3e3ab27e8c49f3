//! The privileged process: API, networks, addresses, interfaces.
