//! The HTTP API on the control socket; `docs/api.md` describes it with examples.
//!
//! A route reads its request, runs one job and writes the answer as JSON. A refusal is
//! `{"code", "message"}` with the status of its code, whoever refused: a job, a body that cannot be
//! read, or no route at all.

pub mod socket;
pub(crate) mod stream;
pub mod types;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use vswitch_sys::wallclock;

use crate::actor::Handle;
use crate::api::types::{Attach, Connect, NetworkCreate, NetworkCreated, SandboxCreate, Version};
use crate::cluster::addresses::with_addresses;
use crate::cluster::networks;
use crate::control::Control;
use crate::error::{Code, Error, ErrorBody, Result};
use crate::network::filters::{self, Filters};

/// Largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Every route.
pub fn router(handle: Handle) -> Router {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/networks", get(list_networks))
        .route("/networks/create", post(create_network))
        .route("/networks/prune", post(prune_networks))
        .route("/networks/{id}", get(inspect_network).delete(remove_network))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
        .route("/networks/{id}/fdb", get(network_fdb))
        .route("/sandboxes", get(list_sandboxes))
        .route("/sandboxes/create", post(create_sandbox))
        .route("/sandboxes/attach", post(attach))
        .route("/sandboxes/{id}", get(inspect_sandbox).delete(remove_sandbox))
        .route("/sandboxes/{id}/detach", post(detach))
        .route("/sandboxes/{id}/ports", get(ports))
        .route("/sandboxes/{id}/publish", post(publish))
        .route("/sandboxes/{id}/unpublish", post(unpublish))
        .route("/endpoints", get(list_endpoints))
        .route("/fdb", get(fdb))
        .route("/cluster", get(cluster))
        .route("/cluster/hosts/{id}", delete(forget_host))
        .route("/flows", get(flows).delete(end_flows))
        .route("/flows/count", get(count_flows))
        .route("/rules", get(list_rules).post(add_rule))
        .route("/rules/import", post(import_rules))
        .route("/rules/{id}", delete(remove_rule))
        .route("/stats", get(stats))
        .fallback(async |request: Request| {
            let message = format!("no route {}: see docs/api.md", request.uri().path());
            Error::new(Code::RouteNotFound, message)
        })
        .method_not_allowed_fallback(async |request: Request| {
            let message =
                format!("route {} takes no {}: see docs/api.md", request.uri().path(), request.method());
            Error::new(Code::MethodNotAllowed, message)
        })
        .with_state(handle)
}

type Answer<T> = Result<Json<T>>;

async fn ping() -> &'static str {
    "OK"
}

async fn version(State(handle): State<Handle>) -> Answer<Version> {
    let system = nix::sys::utsname::uname();
    let kernel_version =
        system.map(|system| system.release().to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_version,
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        warnings: handle.gate().trouble().map(|trouble| trouble.message).into_iter().collect(),
    }))
}

async fn list_networks(State(handle): State<Handle>, query: Filtered) -> Answer<Vec<types::Network>> {
    let filters = query.read(filters::OF_LIST)?;
    Ok(Json(handle.seen().networks(&filters)))
}

async fn prune_networks(State(handle): State<Handle>, query: Filtered) -> Answer<types::NetworksPruned> {
    let filters = query.read(filters::OF_PRUNE)?;
    let (networks_deleted, cleanup) =
        handle.run(async move |control| control.prune_networks(&filters).await).await?;
    cleanup.done().await;
    Ok(Json(types::NetworksPruned { networks_deleted }))
}

async fn inspect_network(State(handle): State<Handle>, Path(id): Path<String>) -> Answer<types::Network> {
    handle.seen().inspect_network(&id).await.map(Json)
}

async fn create_network(
    State(handle): State<Handle>,
    body: Read<NetworkCreate>,
) -> Result<impl IntoResponse> {
    let id = networks::create(&handle, body.0).await?;
    Ok((StatusCode::CREATED, Json(NetworkCreated { id, warning: String::new() })))
}

async fn remove_network(State(handle): State<Handle>, Path(id): Path<String>) -> Result<StatusCode> {
    let cleanup = handle.run(async move |control| control.remove_network(&id).await).await?;
    cleanup.done().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn connect(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    body: Read<Connect>,
) -> Answer<types::Endpoint> {
    let connect = async move |control: &mut Control| control.connect(&id, body.0).await;
    with_addresses(&handle, connect).await.map(Json)
}

async fn disconnect(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    body: Read<types::Disconnect>,
) -> Result<StatusCode> {
    let cleanup = handle.run(async move |control| control.disconnect(&id, &body.0.container).await).await?;
    cleanup.done().await;
    Ok(StatusCode::OK)
}

async fn list_sandboxes(State(handle): State<Handle>) -> Answer<Vec<types::Sandbox>> {
    Ok(Json(handle.seen().sandboxes()))
}

async fn inspect_sandbox(State(handle): State<Handle>, Path(id): Path<String>) -> Answer<types::Sandbox> {
    handle.seen().sandbox(&id).map(Json)
}

async fn create_sandbox(
    State(handle): State<Handle>,
    body: Read<SandboxCreate>,
) -> Result<impl IntoResponse> {
    let create = async move |control: &mut Control| control.create_sandbox(body.0).await;
    let sandbox = with_addresses(&handle, create).await?;
    Ok((StatusCode::CREATED, Json(sandbox)))
}

async fn remove_sandbox(State(handle): State<Handle>, Path(id): Path<String>) -> Result<StatusCode> {
    let cleanup = handle.run(async move |control| control.remove_sandbox(&id).await).await?;
    cleanup.done().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn attach(State(handle): State<Handle>, body: Read<Attach>) -> Result<impl IntoResponse> {
    let attach = async move |control: &mut Control| control.attach(body.0).await;
    let sandbox = with_addresses(&handle, attach).await?;
    Ok((StatusCode::CREATED, Json(sandbox)))
}

async fn detach(State(handle): State<Handle>, Path(id): Path<String>) -> Result<StatusCode> {
    let cleanup = handle.run(async move |control| control.detach(&id).await).await?;
    cleanup.done().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn ports(State(handle): State<Handle>, Path(id): Path<String>) -> Answer<types::Ports> {
    handle.seen().ports(&id).map(Json)
}

async fn publish(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    body: Read<types::Specs>,
) -> Answer<types::Ports> {
    handle.run(async move |control| control.publish(&id, &body.0.specs).await).await.map(Json)
}

async fn unpublish(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    body: Read<types::Specs>,
) -> Answer<types::Ports> {
    handle.run(async move |control| control.unpublish(&id, &body.0.specs, body.0.drain).await).await.map(Json)
}

async fn list_endpoints(State(handle): State<Handle>) -> Answer<Vec<types::Endpoint>> {
    Ok(Json(handle.seen().endpoints()))
}

async fn fdb(State(handle): State<Handle>) -> Answer<Vec<types::FdbEntry>> {
    handle.seen().fdb(None).await.map(Json)
}

async fn network_fdb(State(handle): State<Handle>, Path(id): Path<String>) -> Answer<Vec<types::FdbEntry>> {
    handle.seen().fdb(Some(&id)).await.map(Json)
}

async fn cluster(State(handle): State<Handle>) -> Answer<types::Cluster> {
    handle.look(Control::show_cluster).await?.map(Json)
}

async fn forget_host(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    query: Asked<types::ForgetQuery>,
) -> Result<StatusCode> {
    handle.run(async move |control| control.forget_host(&id, query.0.force)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn flows(State(handle): State<Handle>, query: Asked<types::FlowQuery>) -> Result<Response> {
    let listing = handle.seen().flows(&query.0)?;
    stream::answer(listing).await
}

async fn end_flows(State(handle): State<Handle>, query: Asked<types::FlowQuery>) -> Result<Response> {
    let listing = handle.seen().flows(&query.0)?;
    stream::answer(listing.ending()).await
}

async fn count_flows(State(handle): State<Handle>) -> Answer<types::FlowCount> {
    handle.seen().flow_count().await.map(Json)
}

async fn list_rules(State(handle): State<Handle>) -> Answer<Vec<types::Rule>> {
    handle.seen().rules().await.map(Json)
}

async fn add_rule(State(handle): State<Handle>, body: Read<types::RuleCreate>) -> Result<impl IntoResponse> {
    let rule = handle.run(async move |control| control.add_rule(body.0).await).await?;
    Ok((StatusCode::CREATED, Json(rule)))
}

async fn import_rules(
    State(handle): State<Handle>,
    body: Read<types::RuleImport>,
) -> Result<impl IntoResponse> {
    let status = if body.0.dry_run { StatusCode::OK } else { StatusCode::CREATED };
    let rules = handle.run(async move |control| control.import_rules(body.0).await).await?;
    Ok((status, Json(rules)))
}

async fn remove_rule(State(handle): State<Handle>, Path(id): Path<String>) -> Result<StatusCode> {
    let missing =
        |_| Error::new(Code::RuleNotFound, format!("rule {id:?} not found: see \"vswitch rule ls\""));
    let id = id.parse().map_err(missing)?;
    handle.run(async move |control| control.remove_rule(id).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stats(State(handle): State<Handle>) -> Answer<types::Stats> {
    Ok(Json(handle.seen().stats()))
}

/// The filters of a query, as they were written.
#[derive(Default, Deserialize)]
struct FilterQuery {
    #[serde(default)]
    filters: String,
}

/// A query with filters or without.
struct Filtered(FilterQuery);

impl Filtered {
    fn read(&self, known: &[&str]) -> Result<Filters> {
        Filters::parse(&self.0.filters, known, wallclock::since_epoch())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Filtered {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Asked::from_request_parts(parts, state).await.map(|Asked(query)| Self(query))
    }
}

/// A query.
struct Asked<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let query = Query::from_request_parts(parts, state).await;
        query
            .map(|Query(query)| Self(query))
            .map_err(|error| Error::new(Code::InvalidArgument, format!("the query cannot be read: {error}")))
    }
}

/// A body of JSON, whatever its content type says.
#[derive(Clone)]
struct Read<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Read<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let malformed =
            |what: String| Error::new(Code::MalformedJson, format!("the body cannot be read: {what}"));
        let bytes = to_bytes(request.into_body(), BODY_BYTES_MAX)
            .await
            .map_err(|error| malformed(error.to_string()))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| malformed(error.to_string()))
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = ErrorBody { code: self.code.label().to_owned(), message: self.message };
        (status, Json(body)).into_response()
    }
}
