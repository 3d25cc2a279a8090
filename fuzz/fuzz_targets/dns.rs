//! Answers of name servers: whoever owns the network can write any bytes. The first two bytes choose the question. Where hickory-proto
//! reads an answer, too, both read the same addresses.
#![cfg_attr(fuzzing, no_main)]

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, RData, Record};
use imprint::dns::{Answer, Data, Kind, MAX_ALIASES, Said, answer, in_order};

const NAME: &str = "_imprint._tcp.lab.example";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(([which, random], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let kind = [Kind::Srv, Kind::A, Kind::Aaaa][usize::from(*which) % 3];
    let Some([high, low]) = bytes.first_chunk::<2>() else { return };
    let Some(found) = answer(bytes, u16::from_be_bytes([*high, *low]), NAME, kind) else { return };
    if let Ok(other) = Message::from_vec(bytes)
        && !found.broken
    {
        same_addresses(&found, &other);
    }
    let mut followed = 0;
    let Said::Records(records) = found.says(NAME, kind, &mut followed) else { return };
    assert!(followed <= MAX_ALIASES);
    let fits = |data: &Data| match (kind, data) {
        (Kind::Srv, Data::Service(_)) => true,
        (Kind::A, Data::Address(address)) => address.is_ipv4(),
        (Kind::Aaaa, Data::Address(address)) => address.is_ipv6(),
        _ => false,
    };
    assert!(!records.is_empty() && records.iter().all(fits));
    let services = records.into_iter().filter_map(|data| match data {
        Data::Service(service) => Some(service),
        Data::Address(_) | Data::Alias(_) => None,
    });
    let services: Vec<_> = services.collect();
    let ordered = in_order(services.clone(), 16, &mut |most| most.min(u32::from(*random)));
    assert_eq!(ordered.len(), services.len().min(16));
    assert!(ordered.windows(2).all(|pair| pair[0].priority <= pair[1].priority));
    ordered.iter().for_each(|service| drop(found.added(&service.target)));
});

fn same_addresses(found: &Answer, other: &Message) {
    let of_ours = |(_, data): &(String, Data)| match data {
        Data::Address(address) => Some(*address),
        Data::Alias(_) | Data::Service(_) => None,
    };
    let of_theirs = |record: &Record| match record.data {
        _ if record.dns_class != DNSClass::IN => None,
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    let ours: Vec<IpAddr> = found.records.iter().filter_map(of_ours).collect();
    let theirs: Vec<IpAddr> = other.answers.iter().filter_map(of_theirs).collect();
    assert_eq!(ours, theirs);
}
