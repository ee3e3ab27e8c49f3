//! Tunnels from outside: the RFC requirement by requirement, batches, neighbours, and the table's histories
//! against a reference.

mod batches;
mod neighbours;
mod rfc7348;
mod support;
mod table;
