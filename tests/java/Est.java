// A node with Bouncy Castle's EST client (RFC 7030): CA certificates, attributes, a first certificate with name and token,
// another one with that certificate. It trusts one CA and nothing else, and makes its key as csrattrs says.
//
// java -cp /usr/share/java/bcpkix.jar:/usr/share/java/bcprov.jar:/usr/share/java/bcutil.jar tests/java/Est.java \
//     HOST:PORT root.pem NAME:TOKEN SUBJECT DNS-NAME

import java.io.FileInputStream;
import java.io.FileWriter;
import java.io.Writer;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.Security;
import java.security.cert.CertificateFactory;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.security.spec.ECGenParameterSpec;
import java.util.Arrays;
import java.util.Collections;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLSession;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.ExtensionsGenerator;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x509.GeneralNames;
import org.bouncycastle.asn1.x9.X9ObjectIdentifiers;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.est.CSRAttributesResponse;
import org.bouncycastle.est.ESTAuth;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.EnrollmentResponse;
import org.bouncycastle.est.HttpAuth;
import org.bouncycastle.est.jcajce.JcaJceUtils;
import org.bouncycastle.est.jcajce.JsseESTServiceBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.openssl.jcajce.JcaPEMWriter;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;
import org.bouncycastle.util.io.pem.PemObject;

public class Est {
    public static void main(String[] arguments) throws Exception {
        // Its trust manager asks for it by name.
        Security.addProvider(new BouncyCastleProvider());
        String server = arguments[0], subject = arguments[3], dnsName = arguments[4];
        String[] user = arguments[2].split(":", 2);
        X509Certificate root;
        try (FileInputStream file = new FileInputStream(arguments[1])) {
            root = (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(file);
        }
        ESTService est = builder(server, root).build();

        write("cacerts.pem", (Object[]) ESTService.storeToArray(est.getCACerts().getCertificateStore()));

        CSRAttributesResponse wanted = est.getCSRAttributes().getAttributesResponse();
        for (ASN1ObjectIdentifier requirement : wanted.getRequirements()) {
            System.out.println("csrattrs " + requirement);
        }
        if (!wanted.isAttribute(X9ObjectIdentifiers.id_ecPublicKey)
                || !wanted.hasRequirement(X9ObjectIdentifiers.ecdsa_with_SHA256)) {
            throw new IllegalStateException("the server wants another key than this program makes");
        }

        KeyPair first = key();
        ESTAuth basic = new HttpAuth(user[0], user[1].toCharArray());
        EnrollmentResponse answer = est.simpleEnroll(false, request(first, subject, dnsName), basic);
        X509CertificateHolder certificate = only(answer);
        write("cert.pem", certificate);
        write("key.pem", new PemObject("PRIVATE KEY", first.getPrivate().getEncoded()));

        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        X509Certificate[] chain = {new JcaX509CertificateConverter().getCertificate(certificate)};
        store.setKeyEntry("node", first.getPrivate(), new char[0], chain);
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, new char[0]);
        KeyPair second = key();
        est = builder(server, root).withKeyManagers(keys.getKeyManagers()).build();
        answer = est.simpleEnroll(true, request(second, subject, dnsName), null);
        write("new-cert.pem", only(answer));
        write("new-key.pem", new PemObject("PRIVATE KEY", second.getPrivate().getEncoded()));
        System.out.println("protocol " + ((SSLSession) answer.getSession()).getProtocol());
    }

    private static JsseESTServiceBuilder builder(String server, X509Certificate root) {
        TrustAnchor anchor = new TrustAnchor(root, null);
        JsseESTServiceBuilder builder =
            new JsseESTServiceBuilder(server, JcaJceUtils.getCertPathTrustManager(Collections.singleton(anchor), null));
        return builder.withTimeout(10_000);
    }

    private static KeyPair key() throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(new ECGenParameterSpec("secp256r1"));
        return generator.generateKeyPair();
    }

    private static PKCS10CertificationRequest request(KeyPair key, String subject, String dnsName) throws Exception {
        ExtensionsGenerator extensions = new ExtensionsGenerator();
        GeneralName name = new GeneralName(GeneralName.dNSName, dnsName);
        extensions.addExtension(Extension.subjectAlternativeName, false, new GeneralNames(name));
        return new JcaPKCS10CertificationRequestBuilder(new X500Name(subject), key.getPublic())
            .addAttribute(PKCSObjectIdentifiers.pkcs_9_at_extensionRequest, extensions.generate())
            .build(new JcaContentSignerBuilder("SHA256withECDSA").build(key.getPrivate()));
    }

    private static X509CertificateHolder only(EnrollmentResponse answer) throws Exception {
        if (!answer.isCompleted()) {
            throw new IllegalStateException("the server waits until " + answer.getNotBefore());
        }
        X509CertificateHolder[] certificates = ESTService.storeToArray(answer.getStore());
        if (certificates.length != 1) {
            throw new IllegalStateException("certificates: " + Arrays.toString(certificates));
        }
        return certificates[0];
    }

    private static void write(String file, Object... objects) throws Exception {
        try (Writer plain = new FileWriter(file); JcaPEMWriter writer = new JcaPEMWriter(plain)) {
            for (Object object : objects) {
                writer.writeObject(object);
            }
        }
    }
}
