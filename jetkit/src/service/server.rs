//! The HTTP server of a service: its health and metrics from the first moment, its routes when they are ready.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::ServiceInfo;
use crate::health::{CheckHandle, Health};
use crate::http::{self, Problem, Routes};

/// How often old samples of the metrics are folded away.
const UPKEEP: Duration = Duration::from_secs(5);

/// How long a client may take for the head of a request, the next one on a connection that is kept included.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// How long to wait where no connection can be accepted.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How long `healthcheck` waits for its answer.
const HEALTHCHECK: Duration = Duration::from_secs(3);

/// The listening socket and what answers on it. Cloning gives another handle.
#[derive(Clone)]
pub(crate) struct HttpServer {
    addr: SocketAddr,
    listener: Arc<Mutex<Option<TcpListener>>>,
    site: Arc<Site>,
}

struct Site {
    health: Health,
    metrics: PrometheusHandle,
    /// The routes of the service, once it runs.
    routes: OnceLock<Router>,
    /// What answers until then.
    starting: Router,
    /// Not ready until there are routes.
    check: CheckHandle,
    /// What must have happened before the routes give true answers.
    waiting: Mutex<Vec<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl HttpServer {
    pub(crate) async fn bind(
        addr: SocketAddr,
        health: Health,
        metrics: PrometheusHandle,
    ) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(addr).await.with_context(|| format!("listening on {addr} (HTTP_ADDR)"))?;
        let addr = listener.local_addr()?;
        info!(http.addr = %addr, "http listening");
        let check = health.check("http");
        let starting =
            http::complete(Router::new().route("/", any(starting)).route("/{*path}", any(starting)));
        let site =
            Site { starting, check, health, metrics, routes: OnceLock::new(), waiting: Mutex::default() };
        Ok(Self { addr, listener: Arc::new(Mutex::new(Some(listener))), site: Arc::new(site) })
    }

    /// Where it listens, with the port that it got.
    #[cfg(test)]
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until told to stop, then finishes the requests that run.
    pub(crate) async fn serve(self, stop: CancellationToken) -> anyhow::Result<()> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let listener = listener.context("already served")?;
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                self.site.metrics.run_upkeep();
            }
        };
        tokio::select! {
            () = accept(listener, site(self.site.clone()), stop) => Ok(()),
            () = upkeep => Ok(()),
        }
    }

    /// The routes answer 503 until this has come to pass.
    pub(crate) fn wait_for(&self, caught_up: impl Future<Output = ()> + Send + 'static) {
        self.site.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(caught_up));
    }

    /// Lets the service's routes answer, as soon as their read models have caught up; returns them then.
    pub(crate) fn open(
        &self,
        info: ServiceInfo,
        routes: Routes,
        stop: CancellationToken,
    ) -> JoinHandle<Router> {
        let document = http::document(info, routes.get_openapi());
        let routes = routes.merge(http::pages(&document).into());
        let waiting = std::mem::take(&mut *self.site.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let (site, routes) = (self.site.clone(), http::complete_until(stop, routes));
        tokio::spawn(async move {
            futures::future::join_all(waiting).await;
            let _again = site.routes.set(routes.clone());
            site.check.set_ready(true, "serving");
            routes
        })
    }
}

/// Serves every connection until told to stop, then waits for those on which something runs. (`axum::serve` waits for the
/// head of a request for ever.)
async fn accept(listener: TcpListener, routes: Router, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let (service, connections) = (TowerToHyperService::new(routes), GracefulShutdown::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Most likely too many open files, which only time helps.
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        let connection = http.serve_connection(TokioIo::new(stream), service.clone());
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}

fn site(site: Arc<Site>) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(routes)
        .with_state(site)
}

async fn live(State(site): State<Arc<Site>>) -> (StatusCode, &'static str) {
    if site.health.is_live() {
        (StatusCode::OK, "live\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "failed\n")
    }
}

async fn ready(State(site): State<Arc<Site>>) -> Response {
    let report = site.health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], site.metrics.render())
        .into_response()
}

async fn starting() -> Problem {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting", "The service is starting");
    problem.retry_after(Duration::from_secs(1))
}

async fn routes(State(site): State<Arc<Site>>, request: Request) -> Response {
    let routes = site.routes.get().unwrap_or(&site.starting);
    routes.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
}

/// The `healthcheck` subcommand: an error unless the service on `addr` is ready.
pub(crate) async fn ask_ready(addr: SocketAddr) -> anyhow::Result<()> {
    let addr = reachable(addr);
    let ask = async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET /health/ready HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(64 * 1024).read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(HEALTHCHECK, ask)
        .await
        .with_context(|| format!("no answer from {addr} within {HEALTHCHECK:?}"))?
        .with_context(|| format!("asking {addr}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    ensure!(head.starts_with("HTTP/1.1 200 "), "not ready: {body}");
    Ok(())
}

/// The address to reach a service on that listens on `addr`, from the same machine.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}
