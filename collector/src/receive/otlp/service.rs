//! ⇄ OTLP over gRPC: `opentelemetry.proto.collector.metrics.v1.MetricsService/Export` on the front.
//!
//! The request's bytes come as they are, so that they are looked at before anything is made of them; the service that
//! is generated would decode them first.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use http::{Request, Response};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use prost::bytes::Buf as _;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, UnaryService};

use super::{Format, answer, decode, read};
use crate::identity::authorise::Caller;
use crate::receive::{Receiver, Untaken};

/// The service.
#[derive(Clone)]
pub(crate) struct MetricsService(Arc<Receiver>);

impl MetricsService {
    pub(crate) fn new(receiver: Arc<Receiver>) -> Self {
        Self(receiver)
    }

    async fn export(self, request: tonic::Request<Bytes>) -> Result<ExportMetricsServiceResponse, Status> {
        let Some(Caller::Principal { name, .. }) = request.extensions().get::<Caller>() else {
            return Err(Status::unauthenticated("this call needs a credential"));
        };
        let place = self.0.place(name).await.map_err(status)?;
        let message = request.into_inner();
        let taken =
            self.0.take(&place, move |intake| read(&decode(Format::Protobuf, &message)?, intake)).await;
        taken.map(|outcome| answer(&outcome)).map_err(status)
    }
}

impl NamedService for MetricsService {
    const NAME: &'static str = "opentelemetry.proto.collector.metrics.v1.MetricsService";
}

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl UnaryService<Bytes> for MetricsService {
    type Response = ExportMetricsServiceResponse;
    type Future = Answering<Result<tonic::Response<Self::Response>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { service.export(request).await.map(tonic::Response::new) })
    }
}

impl tower::Service<Request<Body>> for MetricsService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Export is the service's only method, and the guard lets no other path in.
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (service, bytes_max) = (self.clone(), self.0.config().message_bytes_max());
        Box::pin(async move {
            let mut grpc = Grpc::new(RawCodec)
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(bytes_max);
            Ok(grpc.unary(service, request).await)
        })
    }
}

fn status(why: Untaken) -> Status {
    let text = why.to_string();
    match why {
        Untaken::Malformed(_) => Status::invalid_argument(text),
        // With this one senders try again; with RESOURCE_EXHAUSTED alone they drop what they have.
        Untaken::TooMany(_) => Status::unavailable(text),
        Untaken::NoRoom | Untaken::Sources | Untaken::Stopping(_) => Status::unavailable(text),
        Untaken::Failed => Status::internal(text),
    }
}

/// Bytes in, a message out.
#[derive(Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = ExportMetricsServiceResponse;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = ExportMetricsServiceResponse;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
