//! Compiles the .proto files without protoc: protox parses, tonic-prost-build generates.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/meshgate/admin.proto",
        "proto/meshgate/replication.proto",
        "proto/meshgate/snapshot.proto",
        "proto/meshgate/tunnel.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
