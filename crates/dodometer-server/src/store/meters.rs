//! The meters, one row each.

use rusqlite::{Row, params};

use super::{Writer, timestamp, unreadable};
use crate::billable::{Aggregation, Billable, Kind, Price};
use crate::{BUSINESS_ID, Error, ErrorKind, decimal};

impl Writer<'_> {
    /// Every meter, the oldest first.
    pub(crate) fn meters(&self) -> rusqlite::Result<Vec<Billable>> {
        self.0
            .prepare(
                "SELECT id, name, description, event_name, measurement_unit, aggregation, key,
                        created, updated, archived, price_per_unit, free_threshold, currency, filter
                 FROM meter ORDER BY seq",
            )?
            .query_map([], from_row)?
            .collect()
    }

    pub(crate) fn insert_meter(&mut self, meter: &Billable) -> rusqlite::Result<()> {
        let filter = meter
            .filter
            .as_ref()
            .map(serde_json::to_string)
            .transpose()
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        self.0.execute(
            "INSERT INTO meter (id, name, description, event_name, measurement_unit, aggregation,
                                key, created, updated, filter)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                meter.id,
                meter.name,
                meter.description,
                meter.event_name,
                meter.measurement_unit,
                meter.aggregation.kind.name(),
                meter.aggregation.key,
                meter.created_at.as_microsecond(),
                meter.updated_at.as_microsecond(),
                filter,
            ],
        )?;
        Ok(())
    }

    /// Stores what may change of a meter: whether it is archived, and its price.
    pub(crate) fn update_meter(&mut self, meter: &Billable) -> rusqlite::Result<()> {
        let price = meter.price.as_ref();
        self.0.execute(
            "UPDATE meter SET updated = ?2, archived = ?3, price_per_unit = ?4,
                              free_threshold = ?5, currency = ?6
             WHERE id = ?1",
            params![
                meter.id,
                meter.updated_at.as_microsecond(),
                meter.archived,
                price.map(|price| decimal::show(price.per_unit)),
                price.map(|price| price.free_threshold),
                price.map(|price| &price.currency),
            ],
        )?;
        Ok(())
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Billable> {
    let kind: String = row.get(5)?;
    let kind = Kind::from_name(&kind)
        .ok_or_else(|| unreadable(5, Error::new(ErrorKind::Data, "an unknown aggregation")))?;
    let price = match row.get::<_, Option<String>>(10)? {
        None => None,
        Some(text) => Some(Price {
            per_unit: decimal::parse(&text)
                .ok_or_else(|| unreadable(10, Error::new(ErrorKind::Data, "not a decimal")))?,
            free_threshold: row.get(11)?,
            currency: row.get(12)?,
        }),
    };
    let filter = row
        .get::<_, Option<String>>(13)?
        .map(|json| serde_json::from_str(&json).map_err(|error| unreadable(13, error)))
        .transpose()?;
    Ok(Billable {
        id: row.get(0)?,
        business_id: BUSINESS_ID,
        name: row.get(1)?,
        description: row.get(2)?,
        event_name: row.get(3)?,
        measurement_unit: row.get(4)?,
        aggregation: Aggregation { kind, key: row.get(6)? },
        filter,
        created_at: timestamp(row, 7)?,
        updated_at: timestamp(row, 8)?,
        archived: row.get(9)?,
        price,
    })
}
