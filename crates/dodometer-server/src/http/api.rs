//! The routes that the billing API has too.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Keyed, Routes, blocking, read_body};
use crate::Meter;
use crate::billable::{Billable, Definition};
use crate::event::parse_rfc3339;
use crate::faults::Bend;
use crate::meter::MeterUsage;
use crate::refusal::{Answer, Refusal};
use crate::store::{Period, Selection, StoredEvent};

const DEFAULT_PAGE_SIZE: u32 = 10;
const MAX_PAGE_OF_METERS: u32 = 100;
const MAX_PAGE_OF_EVENTS: u32 = 1000;

pub(super) fn routes() -> Routes {
    vec![
        ("/events/ingest", post(ingest)),
        ("/events", get(list_events)),
        ("/events/{id}", get(event)),
        ("/meters", get(list_meters).post(create_meter)),
        ("/meters/{id}", get(meter).delete(archive_meter)),
        ("/meters/{id}/unarchive", post(unarchive_meter)),
        ("/meters/{id}/usage", get(usage)),
    ]
}

/// A list as the API wraps it.
#[derive(Serialize)]
struct Items<T> {
    items: Vec<T>,
}

#[derive(Serialize)]
struct Ingested {
    ingested_count: u64,
}

async fn ingest(
    State(meter): State<Meter>,
    keyed: Answer<Keyed>,
    bend: Option<Extension<Bend>>,
    body: Body,
) -> Answer<Json<Ingested>> {
    // The body is read even when the key is refused: see `MAX_DISCARDED`.
    let body = read_body(body, meter.max_body_bytes()).await;
    blocking(meter, move |meter| {
        let bend = bend.map(|Extension(bend)| bend).unwrap_or_default();
        let read = body.as_ref().ok().cloned();
        let answer = keyed.and(body).and_then(|body| meter.ingest(&body, &bend));
        if let Err(refusal) = &answer {
            meter.count_refusal(refusal, read.as_deref());
        }
        answer.map(|ingested_count| Json(Ingested { ingested_count }))
    })
    .await
}

#[derive(Deserialize)]
struct EventFilter {
    customer_id: Option<String>,
    event_name: Option<String>,
    meter_id: Option<String>,
    start: Option<String>,
    end: Option<String>,
    page_size: Option<u32>,
    page_number: Option<u32>,
}

async fn list_events(
    State(meter): State<Meter>,
    _: Keyed,
    filter: Result<Query<EventFilter>, QueryRejection>,
) -> Answer<Json<Items<StoredEvent>>> {
    let filter = query(filter)?;
    let of = Selection {
        customer_id: filter.customer_id,
        event_name: filter.event_name,
        period: period(filter.start.as_deref(), filter.end.as_deref())?,
        ..Selection::default()
    };
    let size = page_size(filter.page_size, MAX_PAGE_OF_EVENTS)?;
    let number = filter.page_number.unwrap_or(0);
    let meter_id = filter.meter_id;
    let list = move |meter: &Meter| meter.events(of, meter_id.as_deref(), size, number);
    let items = blocking(meter, list).await?;
    Ok(Json(Items { items }))
}

async fn event(
    State(meter): State<Meter>,
    _: Keyed,
    id: Result<Path<String>, PathRejection>,
) -> Answer<Json<StoredEvent>> {
    let id = path(id)?;
    blocking(meter, move |meter| meter.event(&id)).await.map(Json)
}

#[derive(Deserialize)]
struct MeterFilter {
    page_size: Option<u32>,
    page_number: Option<u32>,
    archived: Option<bool>,
}

async fn list_meters(
    State(meter): State<Meter>,
    _: Keyed,
    filter: Result<Query<MeterFilter>, QueryRejection>,
) -> Answer<Json<Items<Billable>>> {
    let filter = query(filter)?;
    let size = page_size(filter.page_size, MAX_PAGE_OF_METERS)? as usize;
    let number = filter.page_number.unwrap_or(0) as usize;
    let archived = filter.archived.unwrap_or(false);
    let items = blocking(meter, move |meter| Ok(meter.meters(archived, size, number))).await?;
    Ok(Json(Items { items }))
}

async fn create_meter(
    State(meter): State<Meter>,
    _: Keyed,
    body: Body,
) -> Answer<(StatusCode, Json<Billable>)> {
    let body = read_body(body, meter.max_body_bytes()).await?;
    let made = blocking(meter, move |meter| meter.create_meter(Definition::read(&body)?)).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn meter(
    State(meter): State<Meter>,
    _: Keyed,
    id: Result<Path<String>, PathRejection>,
) -> Answer<Json<Billable>> {
    let id = path(id)?;
    blocking(meter, move |meter| meter.meter(&id)).await.map(Json)
}

async fn archive_meter(
    State(meter): State<Meter>,
    _: Keyed,
    id: Result<Path<String>, PathRejection>,
) -> Answer<StatusCode> {
    let id = path(id)?;
    blocking(meter, move |meter| meter.set_archived(&id, true)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unarchive_meter(
    State(meter): State<Meter>,
    _: Keyed,
    id: Result<Path<String>, PathRejection>,
) -> Answer<StatusCode> {
    let id = path(id)?;
    blocking(meter, move |meter| meter.set_archived(&id, false)).await?;
    Ok(StatusCode::OK)
}

/// Whose usage, and when.
#[derive(Deserialize)]
pub(super) struct UsageFilter {
    pub(super) customer_id: Option<String>,
    start: Option<String>,
    end: Option<String>,
}

impl UsageFilter {
    pub(super) fn period(&self) -> Answer<Period> {
        period(self.start.as_deref(), self.end.as_deref())
    }
}

async fn usage(
    State(meter): State<Meter>,
    _: Keyed,
    id: Result<Path<String>, PathRejection>,
    filter: Result<Query<UsageFilter>, QueryRejection>,
) -> Answer<Json<MeterUsage>> {
    let (id, filter) = (path(id)?, query(filter)?);
    let period = filter.period()?;
    let customer = filter.customer_id;
    blocking(meter, move |meter| meter.usage(&id, customer.as_deref(), period)).await.map(Json)
}

/// The text of a path's one variable part.
pub(super) fn path(path: Result<Path<String>, PathRejection>) -> Answer<String> {
    path.map(|Path(text)| text).map_err(|rejection| Refusal::path(rejection.body_text()))
}

pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Answer<T> {
    query.map(|Query(value)| value).map_err(|rejection| Refusal::query(rejection.body_text()))
}

fn page_size(given: Option<u32>, most: u32) -> Answer<u32> {
    match given.unwrap_or(DEFAULT_PAGE_SIZE) {
        size if (1..=most).contains(&size) => Ok(size),
        _ => Err(Refusal::query(format!("page_size must be 1 to {most}"))),
    }
}

fn period(start: Option<&str>, end: Option<&str>) -> Answer<Period> {
    Ok(Period { start: moment("start", start)?, end: moment("end", end)? })
}

fn moment(name: &str, text: Option<&str>) -> Answer<Option<Timestamp>> {
    text.map(|text| {
        parse_rfc3339(text)
            .ok_or_else(|| Refusal::query(format!("{name} is not an RFC 3339 date and time")))
    })
    .transpose()
}
