//! Rules as they are written, kept, told and imported.

use std::collections::BTreeMap;

use vswitch_contract::network as engine;
use vswitch_contract::network::Field;

use super::read::read;
use super::show::show;
use super::{iptables, tell};
use crate::api::types::{self, RuleCreate};
use crate::error::Result;
use crate::state::State;
use crate::state::rules::Rule;

fn wish(action: &str) -> RuleCreate {
    RuleCreate { action: action.to_owned(), ..RuleCreate::default() }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A host with the interfaces `eth0` and `wg0`.
fn has(name: &str) -> bool {
    ["eth0", "wg0"].contains(&name)
}

fn parse(state: &State, wish: &RuleCreate) -> Result<Rule> {
    read(state, &|key| state.network_name(key), &has, 7, wish)
}

fn shown(wish: &RuleCreate) -> types::Rule {
    let rule = parse(&State::default(), wish).expect("a rule");
    show(&rule, false, engine::Count::default())
}

#[test]
fn a_rule_shows_as_it_was_written() {
    let wish = RuleCreate {
        from: text("10.1.2.3"),
        to: text("! 10.2.0.9/16"),
        protocol: text("tcp"),
        source_port: text("1024:65535"),
        destination_port: text("!22,80"),
        published_port: text("8080-8081"),
        in_interface: text("eth0"),
        out_interface: text("!br-+"),
        state: text("new"),
        limit: text("10/second"),
        limit_burst: Some(20),
        comment: text("for \"web\""),
        ..wish("reject")
    };
    let rule = parse(&State::default(), &wish).expect("a rule");
    let shown = show(&rule, false, engine::Count { frames: 2, bytes: 128 });
    let expected = types::Rule {
        id: 7,
        from: "10.1.2.3/32".to_owned(),
        to: "!10.2.0.0/16".to_owned(),
        protocol: "tcp".to_owned(),
        source_port: "1024-65535".to_owned(),
        destination_port: "!22,80".to_owned(),
        published_port: "8080-8081".to_owned(),
        in_interface: "eth0".to_owned(),
        out_interface: "!br-+".to_owned(),
        state: "new".to_owned(),
        limit: "10/second".to_owned(),
        limit_burst: 20,
        comment: "for \"web\"".to_owned(),
        action: "reject".to_owned(),
        frames: 2,
        bytes: 128,
        ..types::Rule::default()
    };
    assert_eq!(shown, expected);
    let told = tell::translate(&State::default(), &rule).expect("told");
    assert_eq!(told.not, [Field::To, Field::TargetPorts, Field::OutInterface]);
    assert_eq!(told.target_ports, [22..=22, 80..=80]);
    let kept = serde_json::to_string(&rule).expect("text");
    assert_eq!(serde_json::from_str::<Rule>(&kept).expect("a rule"), rule);
}

#[test]
fn a_body_of_before_is_read() {
    let body = r#"{"Network":"lan","Protocol":"tcp","DestinationPort":"80","Before":2,"Action":"drop"}"#;
    let read: RuleCreate = serde_json::from_str(body).expect("a body");
    assert_eq!((read.before, read.limit), (Some(2), None));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_mend() {
    let drop = || wish("drop");
    let tcp = || RuleCreate { protocol: text("tcp"), ..drop() };
    let bad = [
        (wish("deny"), "action \"deny\" is not known: use accept, drop, reject"),
        (RuleCreate { protocol: text("gre"), ..drop() }, "use any, tcp, udp, sctp, icmp, icmpv6"),
        (RuleCreate { protocol: text("!any"), ..drop() }, "leave it out"),
        (RuleCreate { state: text("old"), ..drop() }, "use new, established"),
        (RuleCreate { destination_port: text("80"), ..drop() }, "give --proto tcp"),
        (RuleCreate { destination_port: text("80"), protocol: text("!tcp"), ..drop() }, "give --proto tcp"),
        (RuleCreate { published_port: text("80"), protocol: text("sctp"), ..drop() }, "--proto tcp or"),
        (RuleCreate { source_port: text("90-80"), ..tcp() }, "write 80, or 8000-8080"),
        (RuleCreate { source_port: text("80,"), ..tcp() }, "\"\" is no port"),
        (RuleCreate { source_port: Some("1,".repeat(64) + "1"), ..tcp() }, "write two rules"),
        (RuleCreate { from: text("10.0.0.0/33"), ..drop() }, "is no subnet"),
        (RuleCreate { from: text("lan"), ..drop() }, "no network, sandbox or subnet \"lan\""),
        (RuleCreate { from: text("sandbox:web"), ..drop() }, "sandbox \"web\" not found"),
        (RuleCreate { from: text("10.0.0.0/8"), to: text("fd00::1"), ..drop() }, "mixes IPv4 and IPv6"),
        (RuleCreate { from: text("fd00::/8"), protocol: text("icmp"), ..drop() }, "mixes IPv4 and IPv6"),
        (RuleCreate { in_interface: text("eth7"), ..drop() }, "no interface \"eth7\""),
        (RuleCreate { in_interface: text("a/b"), ..drop() }, "is no name of an interface"),
        (RuleCreate { out_interface: text("!"), ..drop() }, "is no name of an interface"),
        (RuleCreate { limit: text("ten/second"), ..drop() }, "as in 10/second"),
        (RuleCreate { limit: text("10/week"), ..drop() }, "as in 10/second"),
        (RuleCreate { limit: text("10/second"), limit_burst: Some(0), ..drop() }, "write 1 to 10000"),
        (RuleCreate { limit_burst: Some(3), ..drop() }, "give --limit"),
        (RuleCreate { limit: text("1/day"), state: text("established"), ..drop() }, "leave the state out"),
        (RuleCreate { comment: text("two\nlines"), ..drop() }, "shorten it"),
    ];
    for (wish, part) in bad {
        let error = parse(&State::default(), &wish).expect_err(part);
        assert!(error.message.contains(part) && !error.message.contains('\n'), "{}", error.message);
    }
}

/// The rules that a chain becomes: for each a line of the fields that say something.
fn imported(chain: &str) -> std::result::Result<Vec<String>, String> {
    let text =
        format!("# Generated by iptables-save v1.8.9\n*filter\n:DOCKER-USER - [0:0]\n{chain}\nCOMMIT\n");
    imported_text(&text)
}

fn imported_text(text: &str) -> std::result::Result<Vec<String>, String> {
    let opens = |wish: &RuleCreate| {
        let named = |name: &Option<String>| name.as_ref().is_some_and(|name| name.starts_with("br-"));
        let known = |name: &str| has(name) || name.starts_with("br-");
        read(&State::default(), &|key| State::default().network_name(key), &known, 0, wish)
            .map_err(|error| error.message)?;
        Ok(wish.action == "accept" && named(&wish.in_interface) && named(&wish.out_interface))
    };
    let rules = iptables::import(text, opens).map_err(|error| error.message)?;
    let line = |rule: &RuleCreate| {
        let fields = serde_json::to_value(rule).expect("a value");
        let fields: BTreeMap<String, serde_json::Value> = serde_json::from_value(fields).expect("fields");
        let said = fields.into_iter().map(|(name, value)| {
            format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        });
        said.collect::<Vec<_>>().join(" ")
    };
    Ok(rules.iter().map(line).collect())
}

#[test]
fn a_chain_becomes_rules() {
    for (line, expected) in [
        ("-A DOCKER-USER -j RETURN", &[][..]),
        ("-A DOCKER-USER -i eth0 -j DROP", &["Action=drop From=0.0.0.0/0 InInterface=eth0"]),
        (
            "-A DOCKER-USER ! -s 192.0.2.0/24 -i eth0 -j DROP",
            &["Action=drop From=!192.0.2.0/24 InInterface=eth0 To=0.0.0.0/0"],
        ),
        (
            "[7:420] -A DOCKER-USER -s 192.0.2.7/32 ! -o br-+ -p tcp -m tcp --sport 1024:65535 --dport 80 -j ACCEPT",
            &["Action=accept DestinationPort=80 From=192.0.2.7/32 OutInterface=!br-+ Protocol=tcp \
               SourcePort=1024:65535"],
        ),
        (
            "-A DOCKER-USER -d 10.0.0.0/8 -p udp -m multiport ! --dports 53,5000:5010 -j REJECT --reject-with icmp-port-unreachable",
            &["Action=reject DestinationPort=!53,5000:5010 Protocol=udp To=10.0.0.0/8"],
        ),
        (
            "-A DOCKER-USER -p tcp -m conntrack --ctstate NEW --ctorigdstport 8080 --ctdir ORIGINAL -j RETURN",
            &["Action=accept From=0.0.0.0/0 Protocol=tcp PublishedPort=8080 State=new"],
        ),
        (
            "-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            &["Action=accept From=0.0.0.0/0 State=established"],
        ),
        (
            "-A DOCKER-USER -m state --state NEW,RELATED,ESTABLISHED -j DROP",
            &["Action=drop From=0.0.0.0/0 State=new", "Action=drop From=0.0.0.0/0 State=established"],
        ),
        (
            r#"-A DOCKER-USER -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m limit --limit 10/sec --limit-burst 20 -m comment --comment "slow \"down\"" -j ACCEPT"#,
            &[
                "Action=accept Comment=slow \"down\" From=0.0.0.0/0 Limit=10/sec LimitBurst=20 Protocol=tcp State=new",
            ],
        ),
        ("-A DOCKER-USER -p icmp -j DROP", &["Action=drop Protocol=icmp"]),
        ("-A DOCKER-USER ! -p icmp -j DROP", &["Action=drop From=0.0.0.0/0 Protocol=!icmp"]),
        (
            "-A DOCKER-USER -i br-a -o br-b -j ACCEPT",
            &["Action=accept From=0.0.0.0/0 InInterface=br-a OutInterface=br-b"],
        ),
        (
            "-A DOCKER-USER -i br-a -o br-a -j RETURN",
            &["Action=accept From=0.0.0.0/0 InInterface=br-a OutInterface=br-a"],
        ),
        (
            "-A DOCKER-USER -i eth0 -j DROP\n-A DOCKER-USER -j RETURN\n-A DOCKER-USER -j DROP",
            &["Action=drop From=0.0.0.0/0 InInterface=eth0"],
        ),
        ("-A DOCKER-USER -m comment --comment end -j RETURN\n-A DOCKER-USER -j DROP", &[]),
        ("-A FORWARD -j DOCKER-USER\n-A INPUT -j DROP", &[]),
    ] {
        assert_eq!(
            imported(line).as_deref(),
            Ok(&expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()[..]),
            "{line}"
        );
    }
    let v6 = "# Generated by ip6tables-save v1.8.9\n*filter\n:DOCKER-USER - [0:0]\n-A DOCKER-USER -i eth0 -j DROP\n\
              -A DOCKER-USER -p ipv6-icmp -j ACCEPT\nCOMMIT\n*nat\n-A DOCKER-USER -j X\nCOMMIT\n";
    let expected = ["Action=drop From=::/0 InInterface=eth0", "Action=accept Protocol=icmpv6"];
    assert_eq!(imported_text(v6), Ok(expected.map(str::to_owned).to_vec()));
    let printed = "-N DOCKER-USER\n-A DOCKER-USER -s 2001:db8::/32 -j DROP\n-A DOCKER-USER -j DROP";
    let expected = ["Action=drop From=2001:db8::/32", "Action=drop From=::/0"];
    assert_eq!(imported_text(printed), Ok(expected.map(str::to_owned).to_vec()), "iptables -S");
}

#[test]
fn each_line_that_is_no_rule_is_named_with_its_reason() {
    let bad = [
        ("-j LOG --log-prefix \"x \"", "no log of packets"),
        ("-m iprange --src-range 192.0.2.1-192.0.2.3 -j DROP", "no match \"iprange\""),
        ("-m mark --mark 0x1 -j DROP", "no match \"mark\""),
        ("-p icmp -m icmp --icmp-type 8 -j DROP", "no match \"icmp\""),
        ("-f -j DROP", "nothing like -f"),
        ("-g OTHER", "nothing like -g"),
        ("-j OTHER", "no target \"OTHER\""),
        ("-i eth0", "it has no target"),
        ("-m conntrack --ctstate INVALID -j DROP", "no state INVALID"),
        ("-m conntrack ! --ctstate NEW -j DROP", "--ctstate cannot be negated"),
        ("-m conntrack --ctstate ESTABLISHED -j DROP", "write RELATED,ESTABLISHED"),
        ("-m conntrack --ctstate RELATED -j ACCEPT", "write RELATED,ESTABLISHED"),
        ("-m conntrack --ctorigdst 192.0.2.1 -j DROP", "nothing like --ctorigdst"),
        ("-m conntrack --ctdir REPLY -j DROP", "nothing like --ctdir"),
        ("-p tcp -m tcp --tcp-flags SYN SYN -j DROP", "of TCP flags"),
        ("-p tcp -m multiport --ports 80 -j DROP", "nothing like --ports"),
        ("-p gre -j DROP", "protocol \"gre\" is not known"),
        ("-i eth7 -j DROP", "no interface \"eth7\""),
        ("-i br-a -o br-b -j RETURN", "RETURN opens no way"),
        ("! -s 192.0.2.0/24 ! -d 10.0.0.0/8 -j DROP", "write it as two lines"),
        ("-s 192.0.2.0/24 -m conntrack --ctorigsrc 192.0.2.1 -j DROP", "and otherwise"),
    ];
    let lines: Vec<String> = bad.iter().map(|(line, _)| format!("-A DOCKER-USER {line}")).collect();
    let chain = format!("-A DOCKER-USER -i eth0 -j DROP\n{}", lines.join("\n"));
    let message = imported(&chain).expect_err("most of them are none");
    let mut told = message.lines();
    assert_eq!(told.next(), Some("21 of 22 lines cannot be imported, and none was:"), "{message}");
    for ((line, (_, reason)), told) in lines.iter().zip(bad).zip(told.by_ref()) {
        assert!(
            told.starts_with(&format!("  {line}: ")) && told.contains(reason),
            "{told} has not {reason:?}"
        );
    }
    assert_eq!(told.next(), None);
    let missing = imported_text("*filter\n-A INPUT -j DROP\nCOMMIT\n").expect_err("no chain");
    assert!(missing.contains("no chain DOCKER-USER"), "{missing}");
}

#[test]
fn what_is_shown_can_be_written_again() {
    let first = shown(&RuleCreate {
        from: text("!10.1.0.0/16"),
        protocol: text("sctp"),
        destination_port: text("!1-9,80"),
        in_interface: text("wg+"),
        limit: text("3/min"),
        ..wish("accept")
    });
    let again = shown(&RuleCreate {
        from: Some(first.from.clone()),
        protocol: Some(first.protocol.clone()),
        destination_port: Some(first.destination_port.clone()),
        in_interface: Some(first.in_interface.clone()),
        limit: Some(first.limit.clone()),
        limit_burst: Some(first.limit_burst),
        ..wish("accept")
    });
    assert_eq!(first, again);
}
