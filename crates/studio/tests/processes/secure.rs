//! A studio with a certificate.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use testkit::wait;

use crate::harness::{Studio, finish};

#[tokio::test]
async fn with_a_certificate_only_wss_connections_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let authority = write("authority.pem", authority.pem());
    let chain = write("chain.pem", certificate.pem());
    let key = write("key.pem", key.serialize_pem());

    let port = wait::free_port();
    let (listen, url) = (format!("127.0.0.1:{port}"), format!("wss://localhost:{port}"));
    let studio = Studio::start_with(
        folder,
        &[
            "--listen",
            &listen,
            "--public-url",
            &url,
            "--tls-certificate",
            &chain,
            "--tls-key",
            &key,
        ],
    )
    .await;
    assert_eq!(studio.url, url);

    let list = ["--json", "device", "list"];
    let mut trusting = studio.command(&list);
    trusting.env("SSL_CERT_FILE", &authority);
    let done = finish(trusting).await;
    assert_eq!(done.json(), serde_json::json!([]));

    let wary = studio.run(&list).await;
    assert_ne!(wary.code, 0);
    assert!(wary.stderr.contains("unknown authority"), "{}", wary.stderr);

    let plain = url.replace("wss:", "ws:");
    let refused = studio.run(&["--url", plain.as_str(), "device", "list"]).await;
    assert_ne!(refused.code, 0);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    for (file, expected) in [
        ("empty.pem", "unusable certificate"),
        ("missing.pem", "missing.pem"),
    ] {
        let mut command = crate::harness::studio_program();
        command.current_dir(folder.path()).args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--public-url",
            "wss://localhost:1",
            "--tls-certificate",
            file,
            "--tls-key",
            file,
        ]);
        let done = finish(command).await;
        assert_ne!(done.code, 0);
        assert!(done.stderr.contains(expected), "{}", done.stderr);
    }
}
