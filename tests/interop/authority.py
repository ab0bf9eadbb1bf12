"""A certificate authority for one test, by openssl."""

import subprocess


class Authority:
    """Its own certificate is `ca`; it signs others."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder = folder
        self.ca, self.key = folder / "ca.pem", folder / "ca.key"
        subject = ["-subj", f"/CN={folder.name}"]
        self.openssl("req", "-x509", *self.fresh(self.key), "-days", "30", "-out", self.ca, *subject)

    def issue(self, name, alternative):
        """A certificate with a subjectAltName such as IP:127.0.0.1, and its key."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\n")
        self.openssl("req", *self.fresh(key), "-out", request, "-subj", f"/CN={name}")
        signed_by = ["-CA", self.ca, "-CAkey", self.key, "-CAcreateserial", "-days", "30"]
        self.openssl("x509", "-req", "-in", request, *signed_by, "-extfile", extensions, "-out", certificate)
        return certificate, key

    def fresh(self, key):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key]

    def openssl(self, *words):
        done = subprocess.run(["openssl", *(str(word) for word in words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
