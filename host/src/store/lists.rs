//! What the lists of revoked certificates are made of, read without holding the store. SQL only.

use imprint::time::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::rows::{millis, reason, timestamp};
use super::{Store, StoreError};
use crate::x509::Revoked;

impl Store {
    /// How many certificates an issuer has signed that were revoked: all of them, expired ones, too.
    pub fn count_revoked(&self, issuer: &str) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM certificates WHERE issuer = ?1 AND revoked_at IS NOT NULL";
        let found = self.connection.prepare_cached(sql);
        let count: i64 = self.check(found.and_then(|mut found| found.query_row([issuer], |row| row.get(0))))?;
        Ok(count.try_into().unwrap_or_default())
    }

    /// What an issuer has signed, was revoked, and had not expired before `since`.
    pub fn revoked(&self, issuer: &str, since: Timestamp) -> Result<Vec<Revoked>, StoreError> {
        let sql = "SELECT serial, revoked_at, reason FROM certificates
                   WHERE issuer = ?1 AND not_after >= ?2 AND revoked_at IS NOT NULL ORDER BY revoked_at, rowid";
        let found = self.connection.prepare_cached(sql);
        let rows = found.and_then(|mut found| {
            let read = |row: &rusqlite::Row<'_>| {
                let reason = reason(row.get::<_, Option<i64>>(2)?.unwrap_or_default());
                Ok(Revoked { serial: row.get(0)?, at: timestamp(row, 1)?, reason })
            };
            found.query_map(params![issuer, millis(since)], read)?.collect()
        });
        self.check(rows)
    }

    /// The number of an issuer's last list; 0: there was none.
    pub fn crl_number(&self, issuer: &str) -> Result<u64, StoreError> {
        let sql = "SELECT number FROM crls WHERE issuer = ?1";
        let number = self.connection.query_row(sql, [issuer], |row| row.get::<_, i64>(0)).optional();
        Ok(self.check(number)?.and_then(|number| number.try_into().ok()).unwrap_or_default())
    }
}
