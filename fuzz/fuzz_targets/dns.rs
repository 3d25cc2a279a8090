//! Answers of name servers: whoever owns the network can write any bytes. The first two bytes choose the question.
#![cfg_attr(fuzzing, no_main)]

use imprint::dns::{Data, Kind, MAX_ALIASES, Said, answer, in_order};

const NAME: &str = "_imprint._tcp.lab.example";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(([which, random], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let kind = [Kind::Srv, Kind::A, Kind::Aaaa][usize::from(*which) % 3];
    let Some([high, low]) = bytes.first_chunk::<2>() else { return };
    let Some(found) = answer(bytes, u16::from_be_bytes([*high, *low]), NAME, kind) else { return };
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
