//! Reads the rows that CRLs are made of, without a writers' lock. SQL only; signs nothing.

use imprint::time::Timestamp;
use rusqlite::params;

use super::rows::{millis, reason, timestamp};
use super::{Books, StoreError};
use crate::x509::Revoked;

impl Books {
    /// How many certificates of an issuer were revoked; expired ones count, too.
    pub fn count_revoked(&self, issuer: &str) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM certificates WHERE issuer = ?1 AND revoked_at IS NOT NULL";
        let count: Option<i64> = self.one(sql, [issuer], |row| row.get(0))?;
        Ok(count.and_then(|count| count.try_into().ok()).unwrap_or_default())
    }

    /// An issuer's revoked certificates that had not expired before `since`.
    pub fn revoked(&self, issuer: &str, since: Timestamp) -> Result<Vec<Revoked>, StoreError> {
        let sql = "SELECT serial, revoked_at, reason FROM certificates
                   WHERE issuer = ?1 AND not_after >= ?2 AND revoked_at IS NOT NULL ORDER BY revoked_at, rowid";
        self.many(sql, params![issuer, millis(since)], |row| {
            let reason = reason(row.get::<_, Option<i64>>(2)?.unwrap_or_default());
            Ok(Revoked { serial: row.get(0)?, at: timestamp(row, 1)?, reason })
        })
    }

    /// The number of an issuer's last CRL; 0: there was none.
    pub fn crl_number(&self, issuer: &str) -> Result<u64, StoreError> {
        let sql = "SELECT number FROM crls WHERE issuer = ?1";
        let number: Option<i64> = self.one(sql, [issuer], |row| row.get(0))?;
        Ok(number.and_then(|number| number.try_into().ok()).unwrap_or_default())
    }
}
