//! Attacks of somebody who is root in a container and writes frames by hand.

mod walls;
