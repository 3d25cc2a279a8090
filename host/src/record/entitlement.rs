//! The part of a record that a CSR is compared with and that goes into the certificate. Knows nothing about TOML.

use std::time::Duration;

use imprint::payload::{CertificateNames, KeyType, NodeName};

use super::Record;
use crate::ca::Usage;

/// What a node's certificate may say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entitlement {
    /// The node.
    pub name: NodeName,
    /// The names in its certificate. No other names are ever signed for it.
    pub names: CertificateNames,
    /// Type of its key.
    pub key: KeyType,
    /// Validity of its certificates.
    pub validity: Duration,
    /// Usages of its certificates.
    pub usages: Vec<Usage>,
}

impl Record {
    /// The node's entitlement.
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
