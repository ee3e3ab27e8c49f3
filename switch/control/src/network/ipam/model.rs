//! Allocation against a model that keeps no order: a list of every address and whether it is taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::error::Code;
use crate::network::ipam::{Pool, PoolPlan, Pools};

/// The subnet all addresses are of.
const BASE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

#[derive(Clone, Debug)]
enum Step {
    /// Takes the next free address.
    Next,
    /// Takes the address this far behind the base.
    Ask(u8),
    /// Gives back the one of those taken that this points at.
    Release(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Next),
        2 => (0u8..40).prop_map(Step::Ask),
        3 => any::<usize>().prop_map(Step::Release),
    ];
    prop::collection::vec(step, 1..200)
}

/// A subnet of 1 to 32 addresses, maybe with a range inside and with reserved addresses.
fn plans() -> impl Strategy<Value = PoolPlan> {
    let parts =
        (27u8..=32, 0u8..=5, 0u8..32, prop::option::of(0u8..32), prop::collection::vec(0u8..32, 0..3));
    parts.prop_map(|(prefix, narrower, offset, gateway, reserved)| {
        let narrow = (prefix + narrower).min(32);
        let range = Ipv4Net::new(at(offset), narrow).expect("a prefix").trunc();
        let names = reserved.iter().map(|offset| (format!("r{offset}"), IpAddr::V4(at(*offset))));
        PoolPlan {
            subnet: Ipv4Net::new(BASE, prefix).expect("a prefix").into(),
            gateway: gateway.map(|offset| at(offset).into()),
            range: (narrower > 0).then_some(range.into()),
            reserved: names.collect(),
        }
    })
}

fn at(offset: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(BASE) + u32::from(offset))
}

/// Every address of the subnet that hosts may have, and whether it is taken.
struct Model {
    taken: BTreeMap<IpAddr, bool>,
    range: IpNet,
    last: Option<IpAddr>,
}

impl Model {
    /// The model of a pool, or `None` when there cannot be such a pool.
    fn new(plan: &PoolPlan) -> Option<(Self, IpAddr)> {
        let IpNet::V4(subnet) = plan.subnet else { return None };
        let range = plan.range.unwrap_or(plan.subnet);
        if !plan.subnet.contains(&range) {
            return None;
        }
        // `hosts` knows which addresses there are in small subnets, too.
        let mut taken: BTreeMap<IpAddr, bool> =
            subnet.hosts().map(|address| (IpAddr::V4(address), false)).collect();
        for address in plan.reserved.values().chain(&plan.gateway) {
            let state = taken.get_mut(address).filter(|state| !**state)?;
            *state = true;
        }
        let gateway = match plan.gateway {
            Some(gateway) => gateway,
            None => *taken.iter().find(|(_, taken)| !**taken)?.0,
        };
        taken.insert(gateway, true);
        Some((Self { taken, range, last: None }, gateway))
    }

    /// The free address of the range that follows the last one given, around the end.
    fn next(&mut self) -> Option<IpAddr> {
        let free = self.taken.iter().filter(|(address, taken)| !**taken && self.range.contains(*address));
        let free: Vec<IpAddr> = free.map(|(address, _)| *address).collect();
        let behind = free.iter().find(|address| self.last.is_some_and(|last| **address > last));
        let next = behind.or(free.first()).copied()?;
        self.last = Some(next);
        self.taken.insert(next, true);
        Some(next)
    }

    fn ask(&mut self, address: IpAddr) -> Result<(), Code> {
        let taken = self.taken.get_mut(&address).ok_or(Code::AddressOutside)?;
        if std::mem::replace(taken, true) { Err(Code::AddressInUse) } else { Ok(()) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn allocation_is_that_of_the_model(plan in plans(), steps in steps()) {
        let pool = Pool::new(plan.clone());
        let Some((mut model, gateway)) = Model::new(&plan) else {
            prop_assert!(pool.is_err(), "{plan:?} makes no sense");
            return Ok(());
        };
        let pool = pool.expect("the model has it");
        prop_assert_eq!(pool.gateway(), gateway);
        let mut pools = Pools::new(vec![pool]).expect("one pool");
        let mut held: Vec<IpNet> = Vec::new();
        for step in steps {
            let (found, expected) = match step {
                Step::Next => (pools.take(&[]), model.next().ok_or(Code::AddressesExhausted)),
                Step::Ask(offset) => {
                    let address = IpAddr::V4(at(offset));
                    (pools.take(&[address]), model.ask(address).map(|()| address))
                }
                Step::Release(index) if !held.is_empty() => {
                    let address = held.swap_remove(index % held.len());
                    pools.release(&[address]);
                    model.taken.insert(address.addr(), false);
                    continue;
                }
                Step::Release(_) => continue,
            };
            let found = found.map(|nets| nets[0]).map_err(|error| error.code);
            prop_assert_eq!(found.map(|net| net.addr()), expected);
            held.extend(found);
        }
    }
}
