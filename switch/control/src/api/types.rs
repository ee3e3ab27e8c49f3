//! Bodies that go over the control socket, as JSON.
//!
//! Where Docker's Engine API has such a thing, the field names are Docker's, and bodies may have
//! fields that mean nothing here. The other bodies are ours and refuse what they do not know.

mod cluster;
mod flows;
mod networks;
mod observed;
mod reading;
mod rules;
mod sandboxes;

pub use crate::api::types::cluster::*;
pub use crate::api::types::flows::*;
pub use crate::api::types::networks::*;
pub use crate::api::types::observed::*;
pub use crate::api::types::reading::Map;
pub use crate::api::types::rules::*;
pub use crate::api::types::sandboxes::*;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dockers_client_sends_is_read() {
        let text = r#"{"Name":"n","CheckDuplicate":true,"Driver":"bridge","Scope":"","EnableIPv6":false,
            "IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"10.1.0.0/16","Gateway":""}]},
            "Internal":false,"Attachable":false,"Ingress":false,"ConfigOnly":false,"ConfigFrom":null,
            "Options":{"a":"b"},"Labels":null}"#;
        let read: NetworkCreate = serde_json::from_str(text).expect("read");
        assert_eq!(read.ipam.config[0].subnet, Some("10.1.0.0/16".parse().expect("net")));
        assert_eq!(read.ipam.config[0].gateway, None);
        assert_eq!(read.options.get("a").map(String::as_str), Some("b"));
        let text = r#"{"Container":"c","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.1.0.9"},"Links":null,
            "Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0}}"#;
        let read: Connect = serde_json::from_str(text).expect("read");
        assert_eq!(read.endpoint_config.ipam_config.ipv4_address, Some("10.1.0.9".parse().expect("address")));
        assert_eq!(read.endpoint_config.mac_address, None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let error = serde_json::from_str::<IpamConfig>(r#"{"Subnet":"10.1.0.0/99"}"#).expect_err("no subnet");
        assert!(error.to_string().contains("10.1.0.0/99"), "{error}");
        let error =
            serde_json::from_str::<Attach>(r#"{"Name":"x","Netns":"/x"}"#).expect_err("unknown field");
        assert!(error.to_string().contains("Netns"), "{error}");
    }
}
