//! HTTP/1.1 to one member of an etcd, with or without TLS.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::address::Endpoint;
use super::error::{Error, Result};
use super::tls;

/// The time a member has to accept a connection, and then to agree on TLS.
const CONNECT: Duration = Duration::from_secs(2);

/// A connection that is used by one request at a time. Dropping it closes it.
pub(super) struct Connection {
    sender: SendRequest<Outgoing>,
    driver: Driver,
}

/// The body of a request.
pub(super) enum Outgoing {
    /// One that is there; `None` once it is sent.
    Whole(Option<Bytes>),
    /// One that goes on while the answer does.
    Stream(mpsc::UnboundedReceiver<Bytes>),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take()),
            Self::Stream(bodies) => bodies.poll_recv(context),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(
                body.as_ref().map_or(0, |body| u64::try_from(body.len()).unwrap_or(u64::MAX)),
            ),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// The task that moves a connection's bytes; it ends with this.
pub(super) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The headers of a request, beside its body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said<'a> {
    /// The token that authentication gave us.
    pub(super) token: Option<&'a str>,
    /// Whether a member that has lost its leader shall end the answer: a watch there would hear nothing more.
    pub(super) needs_leader: bool,
}

impl Connection {
    pub(super) async fn open(endpoint: &Endpoint, tls: Option<&TlsConnector>) -> Result<Self> {
        let silent = |_| Error::Silent { endpoint: endpoint.clone(), seconds: CONNECT.as_secs() };
        let connect = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let stream = timeout(CONNECT, connect).await.map_err(silent)?;
        let stream = stream.map_err(|error| failed(endpoint, &error))?;
        stream.set_nodelay(true).map_err(|error| failed(endpoint, &error))?;
        let Some(tls) = tls else { return Self::over(endpoint, stream).await };
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| failed(endpoint, &error))?;
        let stream = timeout(CONNECT, tls.connect(name, stream)).await.map_err(silent)?;
        let stream = stream.map_err(|error| {
            if error.kind() == ErrorKind::UnexpectedEof {
                return Error::Tls { endpoint: endpoint.clone(), why: tls::NONE.to_owned() };
            }
            failed(endpoint, &error)
        })?;
        Self::over(endpoint, stream).await
    }

    async fn over<S>(endpoint: &Endpoint, stream: S) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| failed(endpoint, &error))?;
        // Its errors are those of the request, too.
        let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
        Ok(Self { sender, driver })
    }

    /// Sends a request; the answer's body may go on for ever.
    pub(super) async fn post(
        &mut self,
        endpoint: &Endpoint,
        path: &str,
        body: Outgoing,
        said: Said<'_>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::post(path)
            .header("host", endpoint.to_string())
            .header("content-type", "application/json");
        if let Some(token) = said.token {
            request = request.header("authorization", token);
        }
        if said.needs_leader {
            request = request.header("grpc-metadata-hasleader", "true");
        }
        if matches!(body, Outgoing::Stream(_)) {
            // Go's server reads a request to its end before it answers, unless the connection ends with it
            // (net/http, (*chunkWriter).writeHeader).
            request = request.header("connection", "close");
        }
        let request = request.body(body).map_err(|error| failed(endpoint, &error))?;
        self.sender.send_request(request).await.map_err(|error| failed(endpoint, &error))
    }

    /// Whether another request may be sent.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// The driver, which must be kept for as long as an answer is read.
    pub(super) fn into_driver(self) -> Driver {
        self.driver
    }
}

/// The meaning of an error of a connection.
pub(super) fn failed(endpoint: &Endpoint, error: &(dyn std::error::Error + 'static)) -> Error {
    let endpoint = endpoint.clone();
    if let Some(why) = tls::explain(error) {
        return Error::Tls { endpoint, why };
    }
    if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
        let why = "it closes the connection: if it wants TLS, give --cluster-ca FILE".to_owned();
        return Error::Unreachable { endpoint, why };
    }
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let parse = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
    let why = innermost.to_string();
    if parse { Error::Protocol { endpoint, why } } else { Error::Unreachable { endpoint, why } }
}
