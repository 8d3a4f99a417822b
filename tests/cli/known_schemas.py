"""Schemas that nobody here wrote, and what in them is personal: written down before anything was proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "schemas"


@dataclass(frozen=True)
class KnownSchema:
    """`file` holds the tables, `persons` is the table whose rows are persons; `personal` are the columns that
    hold something personal, by table."""

    title: str
    file: str
    persons: str
    personal: Mapping[str, Sequence[str]]

    @property
    def columns(self) -> frozenset[str]:
        """Return the personal columns as `table.column`."""
        return frozenset(f"{table}.{one}" for table, names in self.personal.items() for one in names)

    @property
    def ddl(self) -> str:
        """Return the statements that make the tables."""
        return (FOLDER / self.file).read_text()


def _of(**tables: str) -> Mapping[str, Sequence[str]]:
    return {table: names.split() for table, names in tables.items()}


KNOWN_SCHEMAS = (
    KnownSchema(
        "Django (auth, admin, sessions, allauth, tokens)",
        "django.sql",
        "auth_user",
        _of(
            auth_user="username first_name last_name email password",
            account_emailaddress="email",
            socialaccount_socialaccount="uid extra_data",
            authtoken_token="key",
            django_session="session_data",
            django_admin_log="object_repr change_message",
        ),
    ),
    KnownSchema(
        "Rails with Devise, paper_trail, Active Storage, ahoy",
        "devise.sql",
        "users",
        _of(
            users="email encrypted_password reset_password_token current_sign_in_ip last_sign_in_ip"
            " confirmation_token unconfirmed_email unlock_token uid first_name last_name time_zone locale",
            posts="body",
            addresses="street city postal_code phone_number country",
            versions="object whodunnit",
            active_storage_blobs="filename",
            ahoy_visits="visitor_token ip user_agent referrer landing_page country region city latitude"
            " longitude",
            newsletter_subscribers="email",
        ),
    ),
    KnownSchema(
        "Keycloak",
        "keycloak.sql",
        "user_entity",
        _of(
            user_entity="email email_constraint first_name last_name username",
            user_attribute="value long_value",
            credential="salt user_label secret_data credential_data",
            federated_identity="federated_user_id federated_username token",
            offline_user_session="data",
            event_entity="details_json ip_address",
        ),
    ),
    KnownSchema(
        "Discourse",
        "discourse.sql",
        "users",
        _of(
            users="username name username_lower date_of_birth ip_address registration_ip_address locale",
            user_emails="email normalized_email",
            user_passwords="password_hash password_salt",
            user_profiles="location website bio_raw bio_cooked",
            user_options="timezone",
            user_auth_tokens="auth_token prev_auth_token user_agent client_ip",
            user_custom_fields="value",
            user_associated_accounts="provider_uid info credentials extra",
            single_sign_on_records="external_id last_payload external_username external_email external_name"
            " external_avatar_url",
            email_tokens="email token_hash",
            email_logs="to_address",
            user_histories="details ip_address email",
            search_logs="term ip_address",
            posts="raw cooked",
            invites="email",
        ),
    ),
    KnownSchema(
        "GitLab",
        "gitlab.sql",
        "users",
        _of(
            users="email encrypted_password reset_password_token current_sign_in_ip last_sign_in_ip name"
            " username avatar confirmation_token unconfirmed_email website_url notification_email"
            " encrypted_otp_secret encrypted_otp_secret_iv encrypted_otp_secret_salt otp_backup_codes"
            " public_email feed_token"
            " incoming_email_token note preferred_language first_name last_name static_object_token"
            " commit_email",
            emails="email confirmation_token",
            identities="extern_uid",
            keys="key title fingerprint",
            personal_access_tokens="name token_digest",
            user_details="job_title bio linkedin twitter website_url location organization phone pronouns"
            " pronunciation",
            user_preferences="timezone",
            authentication_events="ip_address user_name",
            audit_events="details ip_address author_name entity_path target_details",
            namespaces="name path",
            members="invite_email invite_token",
            notes="note",
        ),
    ),
    KnownSchema(
        "Mastodon",
        "mastodon.sql",
        "users",
        _of(
            users="email encrypted_password reset_password_token confirmation_token unconfirmed_email locale"
            " otp_backup_codes sign_up_ip time_zone otp_secret",
            accounts="username private_key display_name note uri url avatar_file_name header_file_name"
            " avatar_remote_url fields",
            session_activations="session_id user_agent ip",
            login_activities="ip user_agent",
            identities="uid",
            oauth_access_tokens="token refresh_token last_used_ip",
            user_invite_requests="text",
            statuses="text",
        ),
    ),
    KnownSchema(
        "WordPress with WooCommerce (in PostgreSQL's types)",
        "woocommerce.sql",
        "wp_users",
        _of(
            wp_users="user_login user_pass user_nicename user_email user_url user_activation_key"
            " display_name",
            wp_usermeta="meta_value",
            wp_posts="post_content",
            wp_comments="comment_author comment_author_email comment_author_url comment_author_IP"
            " comment_content comment_agent",
            wp_wc_orders="billing_email ip_address user_agent customer_note",
            wp_wc_order_addresses="first_name last_name company address_1 address_2 city state postcode"
            " country email phone",
            wp_wc_customer_lookup="username first_name last_name email country postcode city state",
            wp_woocommerce_payment_tokens="token",
        ),
    ),
    KnownSchema(
        "Odoo",
        "odoo.sql",
        "res_partner",
        _of(
            res_partner="name display_name lang tz vat website comment function street street2 zip city"
            " partner_latitude partner_longitude email phone mobile email_normalized phone_sanitized"
            " signup_token",
            res_users="login password signature totp_secret",
            res_partner_bank="acc_number acc_holder_name",
            mail_message="body email_from",
            crm_lead="partner_name contact_name email_from phone mobile street city description",
            hr_employee="name work_email mobile_phone private_email birthday marital gender passport_id",
            sale_order="note",
            ir_attachment="name db_datas",
        ),
    ),
    KnownSchema(
        "Moodle",
        "moodle.sql",
        "mdl_user",
        _of(
            mdl_user="username password idnumber firstname lastname email phone1 institution department"
            " address city country lang timezone lastip secret description",
            mdl_user_info_data="data",
            mdl_user_preferences="value",
            mdl_sessions="sid sessdata firstip lastip",
            mdl_logstore_standard_log="ip other",
            mdl_forum_posts="subject message",
        ),
    ),
    KnownSchema(
        "Auth.js with Prisma",
        "nextauth.sql",
        "User",
        _of(
            User="name email image hashedPassword phoneNumber",
            Account="providerAccountId refresh_token access_token id_token",
            Session="sessionToken",
            VerificationToken="identifier token",
            Post="title content",
            Order="shippingAddress billingName cardLast4",
        ),
    ),
    KnownSchema(
        "Spree",
        "spree.sql",
        "spree_users",
        _of(
            spree_users="encrypted_password password_salt email remember_token reset_password_token login"
            " authentication_token spree_api_key current_sign_in_ip first_name last_name selected_locale",
            spree_addresses="firstname lastname address1 address2 city zipcode phone state_name"
            " alternative_phone company",
            spree_orders="email special_instructions last_ip_address guest_token internal_note",
            spree_credit_cards="name last_digits gateway_customer_profile_id",
        ),
    ),
)
