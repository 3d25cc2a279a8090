//! X25519 keys of age, as text and in use: they wrap and unwrap the key of a file. Never keeps a file's key.

use std::fmt;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use zeroize::{Zeroize, Zeroizing};

use super::{AgeError, FileKey, bech32, derive};

/// A secret key: `AGE-SECRET-KEY-1…`. Wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Zeroizing<[u8; 32]>);

/// The public key of an identity: `age1…`
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipient([u8; 32]);

/// Why a text is no key. Never shows the text, which may be a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyTextError {
    /// Not the text of an identity.
    Identity,
    /// A public key where a secret one is needed.
    NotSecret,
    /// Not the text of a recipient.
    Recipient,
    /// A secret key where a public one is needed.
    Secret,
    /// A recipient that is a point of low order.
    LowOrder,
}

impl fmt::Display for KeyTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyTextError::Identity => {
                "not an age identity; want AGE-SECRET-KEY-1 and 58 characters, as age-keygen writes them"
            }
            KeyTextError::NotSecret => "this is a recipient, a public key; want the identity, AGE-SECRET-KEY-1…",
            KeyTextError::Recipient => {
                "not an age recipient; want age1 and 58 characters, as age-keygen -y writes them"
            }
            KeyTextError::Secret => "this is an identity, a secret key; want its recipient, which age-keygen -y prints",
            KeyTextError::LowOrder => "this recipient is a point of low order, and keeps no secret; use another key",
        })
    }
}

impl std::error::Error for KeyTextError {}

impl Identity {
    /// A new identity.
    pub fn generate() -> Result<Identity, AgeError> {
        let mut bytes = Zeroizing::new([0; 32]);
        super::random(&mut *bytes)?;
        Ok(Identity(bytes))
    }

    /// The identity with these secret bytes. Every 32 bytes are a key (RFC 7748 §5).
    pub fn from_bytes(bytes: &[u8; 32]) -> Identity {
        Identity(Zeroizing::new(*bytes))
    }

    /// The secret bytes. Do not copy them into a type that is not wiped.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The identity of a file as `age-keygen` writes it: one identity, and lines that are empty or begin with `#`.
    pub fn parse(text: &str) -> Result<Identity, KeyTextError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else { return Err(KeyTextError::Identity) };
        if Recipient::parse(line).is_ok() {
            return Err(KeyTextError::NotSecret);
        }
        // BIP 173 allows lower case, too; age's own tools write and read upper case.
        if line.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(KeyTextError::Identity);
        }
        let line = Zeroizing::new(line.to_ascii_lowercase());
        bech32::decode("age-secret-key-", &line).map(Identity).ok_or(KeyTextError::Identity)
    }

    /// `AGE-SECRET-KEY-1…`, without a line end.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = bech32::encode("age-secret-key-", &self.0);
        text.make_ascii_uppercase();
        text
    }

    /// The public key. Zeros if the secret is no key, which cannot be: nobody can encrypt for zeros.
    pub fn recipient(&self) -> Recipient {
        let public = private(&self.0).and_then(|key| key.compute_public_key().ok());
        Recipient(public.and_then(|public| public.as_ref().try_into().ok()).unwrap_or([0; 32]))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Recipient {
    /// Takes `age1…`. A point of low order is refused: what is encrypted for it, everybody can read.
    pub fn parse(text: &str) -> Result<Recipient, KeyTextError> {
        if text.get(..15).is_some_and(|begin| begin.eq_ignore_ascii_case("AGE-SECRET-KEY-")) {
            return Err(KeyTextError::Secret);
        }
        Recipient::from_bytes(*bech32::decode("age", text).ok_or(KeyTextError::Recipient)?)
    }

    /// The recipient with this public key. A point of low order is refused.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Recipient, KeyTextError> {
        shared(&Zeroizing::new([1; 32]), &bytes).ok_or(KeyTextError::LowOrder)?;
        Ok(Recipient(bytes))
    }

    /// A public key that nobody has checked.
    #[cfg(test)]
    pub(super) fn of_point(bytes: [u8; 32]) -> Recipient {
        Recipient(bytes)
    }

    /// The public key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// `age1…`
impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::encode("age", &self.0))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}

/// Length of a file's key that is wrapped.
pub(super) const WRAPPED_LEN: usize = 32;

/// The arguments and the body of a stanza: the ephemeral share, and the wrapped key.
pub(super) fn wrap(
    file_key: &FileKey,
    recipient: &Recipient,
    ephemeral: &Zeroizing<[u8; 32]>,
) -> Result<([u8; 32], [u8; WRAPPED_LEN]), AgeError> {
    let share = Identity(ephemeral.clone()).recipient().0;
    let secret = shared(ephemeral, &recipient.0).ok_or(AgeError::LowOrder)?;
    let mut body = [0; WRAPPED_LEN];
    let (text, tag) = body.split_at_mut(16);
    text.copy_from_slice(&**file_key);
    let key = wrapping_key(&secret, &share, &recipient.0)?;
    let made = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), text);
    match made {
        Ok(made) if made.as_ref().len() == tag.len() => tag.copy_from_slice(made.as_ref()),
        // The file's key must not stay in the clear.
        _ => {
            body.zeroize();
            return Err(AgeError::Library);
        }
    }
    Ok((share, body))
}

/// The key of a file, if this stanza is for this identity.
pub(super) fn unwrap(
    share: &[u8; 32],
    body: &[u8; WRAPPED_LEN],
    identity: &Identity,
) -> Result<Option<FileKey>, AgeError> {
    let secret = shared(&identity.0, share).ok_or(AgeError::LowOrder)?;
    let key = wrapping_key(&secret, share, &identity.recipient().0)?;
    let mut text = Zeroizing::new(*body);
    let plain = key.open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut *text);
    Ok(plain.ok().and_then(|plain| <[u8; 16]>::try_from(&*plain).ok()).map(Zeroizing::new))
}

fn wrapping_key(secret: &Zeroizing<[u8; 32]>, share: &[u8; 32], recipient: &[u8; 32]) -> Result<LessSafeKey, AgeError> {
    let mut salt = [0; 64];
    for (to, from) in salt.iter_mut().zip(share.iter().chain(recipient)) {
        *to = *from;
    }
    let key = derive(&**secret, &salt, b"age-encryption.org/v1/X25519")?;
    UnboundKey::new(&CHACHA20_POLY1305, &*key).map(LessSafeKey::new).map_err(|_| AgeError::Library)
}

fn private(secret: &Zeroizing<[u8; 32]>) -> Option<PrivateKey> {
    PrivateKey::from_private_key(&X25519, &**secret).ok()
}

/// X25519 (RFC 7748 §6.1). `None`: the shared secret is all zeros, since the other's key is a point of low order.
fn shared(secret: &Zeroizing<[u8; 32]>, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let public = UnparsedPublicKey::new(&X25519, public);
    agreement::agree(&private(secret)?, public, (), |shared| {
        Ok(Zeroizing::new(<[u8; 32]>::try_from(shared).map_err(|_| ())?))
    })
    .ok()
    .filter(|shared| shared.iter().any(|byte| *byte != 0))
}
