//! Admission keys by name: makes them for sticks and images, and takes public keys that were made elsewhere. Keeps no private
//! key. Which records name a key is the records' business; who is let in for one is `admission`'s.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use imprint::key_code::KeyCode;
use imprint::payload::NodeName;
use imprint::pem;
use imprint::time::Timestamp;
use zeroize::Zeroizing;

use super::State;
use crate::record::admission::ED25519;
use crate::store::{AdmissionKeyRow, Event, StoreError};

/// Why an admission key was not made, taken or forgotten.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A record could not name it.
    #[error("{0} is not a name for an admission key; give it one like that of a node")]
    Name(String),
    /// There is a key with this name.
    #[error("there is an admission key {name} already, with code {code}; give the new one another name")]
    Named {
        /// The name.
        name: String,
        /// The code of the key.
        code: String,
    },
    /// The key has another name.
    #[error("this host knows the key with code {code} already, as {name}")]
    Known {
        /// The name.
        name: String,
        /// The code of the key.
        code: String,
    },
    /// There is none with this name.
    #[error("there is no admission key {0}; imprint-host key list lists them")]
    NoSuchKey(String),
    /// The file holds no public key that an admission key can have.
    #[error(
        "there is no Ed25519 public key in it: want one block \"PUBLIC KEY\" in PEM, as openssl pkey -pubout writes it. The private \
         key stays where it is"
    )]
    NoPublicKey,
    /// No key could be made.
    #[error("the random numbers for a key could not be had")]
    Random,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A new private key, for a file. Wiped on drop.
pub struct MadeKey {
    /// PKCS#8 in PEM.
    pub pem: Zeroizing<String>,
    /// Its public key.
    pub public: [u8; 32],
}

impl MadeKey {
    /// Makes a key that nobody else has.
    pub fn new() -> Result<MadeKey, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Random)?;
        let document = pair.to_pkcs8v1().map_err(|_| KeyError::Random)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Random)?;
        Ok(MadeKey { pem: pem::encode("PRIVATE KEY", document.as_ref()), public })
    }
}

/// The public key in a PEM file.
pub fn public_key(file: &[u8]) -> Result<[u8; 32], KeyError> {
    let blocks = std::str::from_utf8(file).ok().and_then(|text| pem::decode("PUBLIC KEY", text));
    let public = match blocks.as_deref() {
        Some([der]) => der.strip_prefix(&ED25519).and_then(|public| public.try_into().ok()),
        _ => None,
    };
    public.ok_or(KeyError::NoPublicKey)
}

impl State {
    /// Lists a public key under a name. `in_image`: it is for images, so that everybody with the image has it.
    pub fn list_key(&mut self, name: &str, public: [u8; 32], in_image: bool, now: Timestamp) -> Result<(), KeyError> {
        // As records name nodes, so that a record can name it.
        if NodeName::try_from(name).is_err() {
            return Err(KeyError::Name(name.to_owned()));
        }
        let changes = self.store.changes()?;
        let code = KeyCode::of(&public).to_string();
        if let Some(AdmissionKeyRow { public, .. }) = changes.admission_key(name)? {
            return Err(KeyError::Named { name: name.to_owned(), code: KeyCode::of(&public).to_string() });
        }
        let row = AdmissionKeyRow { name: name.to_owned(), public, in_image, made_at: now };
        if !changes.put_admission_key(&row)? {
            let known = changes.admission_key_of(&public)?;
            return Err(KeyError::Known { name: known.map(|known| known.name).unwrap_or_default(), code });
        }
        let place = if in_image { "an image" } else { "a stick" };
        let detail = format!("{name}, code {code}, of {place}");
        changes.audit(&Event { event: "key", node: None, peer: None, detail: &detail }, now)?;
        Ok(changes.commit()?)
    }

    /// Forgets an admission key: records that name it let nobody in for it any more.
    pub fn forget_key(&mut self, name: &str, now: Timestamp) -> Result<AdmissionKeyRow, KeyError> {
        let changes = self.store.changes()?;
        let Some(row) = changes.admission_key(name)? else { return Err(KeyError::NoSuchKey(name.to_owned())) };
        changes.drop_admission_key(name)?;
        let detail = format!("{name}, code {}, is forgotten", KeyCode::of(&row.public));
        changes.audit(&Event { event: "key forgotten", node: None, peer: None, detail: &detail }, now)?;
        changes.commit()?;
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use imprint::line::admission::AdmissionKey;

    use super::*;

    /// A node reads what the host makes.
    #[test]
    fn a_made_key_is_one_that_nodes_read() {
        let made = MadeKey::new().unwrap();
        assert_eq!(AdmissionKey::parse(made.pem.as_bytes()).unwrap().public(), made.public);
        assert_ne!(MadeKey::new().unwrap().public, made.public);
        let spki = pem::encode("PUBLIC KEY", &[&ED25519[..], &made.public].concat());
        assert_eq!(public_key(spki.as_bytes()).unwrap(), made.public);
        for wrong in ["", &*made.pem, &format!("{}{}", *spki, *spki), &pem::encode("PUBLIC KEY", &made.public)] {
            assert!(matches!(public_key(wrong.as_bytes()), Err(KeyError::NoPublicKey)), "{wrong}");
        }
    }
}
