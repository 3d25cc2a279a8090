//! Admission keys by name, as rows. SQL only; decides nothing. Never has a private key.

use imprint::time::Timestamp;
use rusqlite::{Row, params};

use super::rows::{millis, timestamp};
use super::{Books, Changes, StoreError};

/// An admission key that this host knows by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdmissionKeyRow {
    /// Its name.
    pub name: String,
    /// Ed25519 public key.
    pub public: [u8; 32],
    /// It was made for images: everybody with the image has it.
    pub in_image: bool,
    /// When it was made.
    pub made_at: Timestamp,
}

impl Books {
    /// The admission key with this name.
    pub fn admission_key(&self, name: &str) -> Result<Option<AdmissionKeyRow>, StoreError> {
        self.one("SELECT name, public, in_image, made_at FROM admission_keys WHERE name = ?1", [name], key_row)
    }

    /// The admission key with this public key.
    pub fn admission_key_of(&self, public: &[u8; 32]) -> Result<Option<AdmissionKeyRow>, StoreError> {
        let sql = "SELECT name, public, in_image, made_at FROM admission_keys WHERE public = ?1";
        self.one(sql, [public.as_slice()], key_row)
    }

    /// All admission keys, by name.
    pub fn admission_keys(&self) -> Result<Vec<AdmissionKeyRow>, StoreError> {
        self.many("SELECT name, public, in_image, made_at FROM admission_keys ORDER BY name", [], key_row)
    }
}

impl Changes<'_> {
    /// Stores an admission key by its name. False: there is another key of this name, or this key has another name.
    pub fn put_admission_key(&self, row: &AdmissionKeyRow) -> Result<bool, StoreError> {
        let sql = "INSERT INTO admission_keys (name, public, in_image, made_at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT DO NOTHING";
        let values = params![row.name, row.public.as_slice(), row.in_image, millis(row.made_at)];
        Ok(self.execute(sql, values)? == 1)
    }

    /// Forgets an admission key. False: there is none of this name.
    pub fn drop_admission_key(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.execute("DELETE FROM admission_keys WHERE name = ?1", [name])? == 1)
    }
}

fn key_row(row: &Row<'_>) -> rusqlite::Result<AdmissionKeyRow> {
    let (name, public, in_image) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(AdmissionKeyRow { name, public, in_image, made_at: timestamp(row, 3)? })
}
