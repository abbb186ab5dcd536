//! Compiles `tocsin/v1/*.proto` without a protoc on the machine, and keeps the descriptors for reflection.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["records", "agent", "enrollment", "query", "alert", "incident", "job", "feed", "admin", "journal"]
            .map(|name| format!("tocsin/v1/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("tocsin.descriptors"), prost_bytes(&descriptors))?;
    let configured = tonic_prost_build::configure().codec_path("crate::codec::BoundedCodec");
    configured.bytes(".tocsin.v1.Row").compile_fds(descriptors)?;
    Ok(())
}

fn prost_bytes(descriptors: &protox::prost_reflect::prost_types::FileDescriptorSet) -> Vec<u8> {
    protox::prost_reflect::prost::Message::encode_to_vec(descriptors)
}
