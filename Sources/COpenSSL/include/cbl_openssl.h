// OpenSSL with memory BIOs: the ring does the I/O, OpenSSL only the cryptography.
//
// Reason for each function: what OpenSSL offers as a function-like macro, or as a constant that is
// computed by one, Swift cannot import. Calls only, no logic.
#pragma once

#include <stdlib.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

// MARK: - Contexts

/// TLS 1.2 at least, no compression, no renegotiation, no resumption, our order of suites.
static inline void cbl_tls_context_harden(SSL_CTX *context) {
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION
                                     | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_dh_auto(context, 1);
}

/// A write may end after a record, and its repetition may come from another address.
static inline void cbl_tls_context_set_write_modes(SSL_CTX *context) {
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static inline void cbl_tls_context_set_version_min(SSL_CTX *context, int version) {
    SSL_CTX_set_min_proto_version(context, version);
}

static inline void cbl_tls_context_set_version_max(SSL_CTX *context, int version) {
    SSL_CTX_set_max_proto_version(context, version);
}

static inline void cbl_tls_context_set_certificate_bytes_max(SSL_CTX *context, long byte_count) {
    SSL_CTX_set_max_cert_list(context, byte_count);
}

static inline void cbl_tls_context_set_owner(SSL_CTX *context, void *owner) {
    SSL_CTX_set_app_data(context, owner);
}

static inline void *cbl_tls_owner(const SSL *session) {
    return SSL_CTX_get_app_data(SSL_get_SSL_CTX(session));
}

static inline void cbl_tls_context_check_revocation(SSL_CTX *context) {
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_CRL_CHECK);
}

// MARK: - Sessions

static inline void cbl_tls_session_set_server_name(SSL *session, const char *name) {
    SSL_set_tlsext_host_name(session, name);
}

static inline void cbl_tls_session_set_owner(SSL *session, void *owner) {
    SSL_set_app_data(session, owner);
}

static inline void *cbl_tls_session_owner(const SSL *session) {
    return SSL_get_app_data(session);
}

// MARK: - BIO pairs

static inline size_t cbl_bio_pending(BIO *bio) {
    return BIO_ctrl_pending(bio);
}

static inline size_t cbl_bio_room(BIO *bio) {
    return BIO_ctrl_get_write_guarantee(bio);
}

static inline void cbl_bio_end(BIO *bio) {
    BIO_shutdown_wr(bio);
}

// MARK: - Certificates

static inline int cbl_x509_compare_with_now(const ASN1_TIME *time) {
    return X509_cmp_current_time(time);
}
