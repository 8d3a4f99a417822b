-- Odoo: every person is a partner, a login hangs on one, and whoever wrote a row stands in it: the facts of its models.
CREATE TABLE res_company (id serial PRIMARY KEY, name varchar NOT NULL, email varchar, phone varchar);
CREATE TABLE res_partner (
  id serial PRIMARY KEY, company_id int REFERENCES res_company, create_date timestamp, name varchar, display_name varchar, date date,
  parent_id int REFERENCES res_partner, ref varchar, lang varchar, tz varchar, user_id int, vat varchar, website varchar,
  comment text, active boolean, function varchar, type varchar, street varchar, street2 varchar, zip varchar, city varchar,
  partner_latitude numeric, partner_longitude numeric, email varchar, phone varchar, mobile varchar, is_company boolean, color int,
  email_normalized varchar, phone_sanitized varchar, signup_token varchar, commercial_partner_id int REFERENCES res_partner,
  create_uid int, write_uid int, write_date timestamp);
CREATE TABLE res_users (
  id serial PRIMARY KEY, active boolean DEFAULT true, login varchar NOT NULL UNIQUE, password varchar,
  company_id int NOT NULL REFERENCES res_company, partner_id int NOT NULL REFERENCES res_partner ON DELETE RESTRICT, signature text,
  share boolean, totp_secret varchar, notification_type varchar NOT NULL, create_uid int REFERENCES res_users, create_date timestamp);
ALTER TABLE res_partner ADD FOREIGN KEY (user_id) REFERENCES res_users ON DELETE SET NULL;
ALTER TABLE res_partner ADD FOREIGN KEY (create_uid) REFERENCES res_users ON DELETE SET NULL;
ALTER TABLE res_partner ADD FOREIGN KEY (write_uid) REFERENCES res_users ON DELETE SET NULL;
CREATE TABLE res_partner_bank (
  id serial PRIMARY KEY, acc_number varchar NOT NULL, acc_holder_name varchar, partner_id int NOT NULL REFERENCES res_partner ON DELETE CASCADE,
  create_uid int REFERENCES res_users);
CREATE TABLE mail_message (
  id serial PRIMARY KEY, subject varchar, body text, author_id int REFERENCES res_partner ON DELETE SET NULL, email_from varchar,
  create_uid int REFERENCES res_users, create_date timestamp);
CREATE TABLE mail_followers (
  id serial PRIMARY KEY, res_model varchar NOT NULL, res_id int, partner_id int NOT NULL REFERENCES res_partner ON DELETE CASCADE);
CREATE TABLE crm_lead (
  id serial PRIMARY KEY, name varchar NOT NULL, partner_id int REFERENCES res_partner, partner_name varchar, contact_name varchar,
  email_from varchar, phone varchar, mobile varchar, street varchar, city varchar, description text, user_id int REFERENCES res_users,
  create_uid int REFERENCES res_users, create_date timestamp);
CREATE TABLE sale_order (
  id serial PRIMARY KEY, name varchar NOT NULL, partner_id int NOT NULL REFERENCES res_partner ON DELETE RESTRICT,
  partner_invoice_id int NOT NULL REFERENCES res_partner, note text, amount_total numeric, create_uid int REFERENCES res_users);
CREATE TABLE hr_employee (
  id serial PRIMARY KEY, name varchar NOT NULL, user_id int REFERENCES res_users, work_email varchar, mobile_phone varchar,
  private_email varchar, birthday date, marital varchar, gender varchar, passport_id varchar, create_uid int REFERENCES res_users);
CREATE TABLE ir_attachment (
  id serial PRIMARY KEY, name varchar NOT NULL, res_model varchar, res_id int, mimetype varchar, db_datas bytea, create_uid int REFERENCES res_users);
