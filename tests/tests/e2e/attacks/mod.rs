//! Attacks: what whoever writes frames does not get.

mod flows;
