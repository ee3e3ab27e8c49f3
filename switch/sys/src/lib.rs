//! Every system call the switch makes, and its only unsafe code.
//!
//! One file per kernel facility, each opening with the kernel facts it leans on.
//!
//! | used by | modules |
//! |---|---|
//! | the datapath | [`clock`] [`device`] [`memory`] [`packet`] [`path_mtu`] [`poll`] [`seqpacket`] [`shared`] [`stream`] [`tap`] [`udp`] [`confine`] |
//! | control, bench and tests | [`claim`] [`filter`] [`netlink`] [`netns`] [`pidfd`] [`hostname`] [`etc`] [`random`] [`shelf`] [`wallclock`] |
//! | traffic generators | [`socket`] |
//! | tests, with the feature of its name | `counting` |

pub mod claim;
pub mod clock;
pub mod confine;
#[cfg(feature = "counting")]
pub mod counting;
pub mod datagrams;
pub mod device;
pub mod etc;
pub mod filter;
pub mod hostname;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod packet;
pub mod path_mtu;
pub mod pidfd;
pub mod poll;
pub mod random;
pub mod seqpacket;
pub mod shared;
pub mod shelf;
pub mod socket;
pub mod stream;
pub mod tap;
pub mod udp;
pub mod wallclock;
