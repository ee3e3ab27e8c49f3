//! Networks, who is on them, and rules: the switch's own descriptions.

pub use vswitch_engine::{
    Action, Count, End, Endpoint, Field, Gateway, GatewayMode, Interface, Limit, Network, Period, PortRange,
    Protocol, Remote, Rule, State, Station,
};
