//! The standing attacker: whoever writes frames, and may mean harm.
//!
//! It is root in a container, owns its interface, sends any frame with any virtio-net header, and has friends
//! on other networks, in the world and on other hosts. [`walls`] drives a whole datapath, from descriptor to
//! descriptor, with what it sends, and checks what arrives where against the walls, as a receiver's kernel
//! would read it.
//!
//! | module | |
//! |---|---|
//! | [`places`] | who is where |
//! | [`house`] | a datapath with all of them |
//! | `bytes` `frames` | frames made of bytes that somebody else chose |
//! | [`seen`] | a frame as a Linux host takes it in |
//! | [`walls`](mod@walls) | the walls |
//! | [`wire`] | the same frames into a real interface |

mod bytes;
mod frames;
pub mod house;
pub mod places;
pub mod seen;
pub mod walls;
pub mod wire;

pub use walls::walls;
