//! What a record entitles its node to: what is compared with a CSR, and what goes into the certificate. Knows nothing of TOML.

use std::time::Duration;

use imprint::payload::{CertificateNames, KeyType, NodeName};

use super::Record;
use crate::ca::Usage;

/// What a node may have a certificate for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entitlement {
    /// The node.
    pub name: NodeName,
    /// What its certificate says; nothing else is ever signed for it.
    pub names: CertificateNames,
    /// What key it has.
    pub key: KeyType,
    /// How long its certificates last.
    pub validity: Duration,
    /// What they may be used for.
    pub usages: Vec<Usage>,
}

impl Record {
    /// What the node may have a certificate for.
    pub fn entitlement(&self) -> Entitlement {
        Entitlement {
            name: self.name.clone(),
            names: self.names.clone(),
            key: self.key,
            validity: self.validity,
            usages: self.usages.clone(),
        }
    }
}
