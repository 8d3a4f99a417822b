"""How people are told: letters from templates, by SMTP or by a signed webhook."""
