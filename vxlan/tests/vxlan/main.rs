//! Tunnels from outside: the RFC requirement by requirement, batches, neighbours, narrow paths, and the
//! table's histories against a reference.

mod batches;
mod neighbours;
mod paths;
mod rfc7348;
mod support;
mod table;
