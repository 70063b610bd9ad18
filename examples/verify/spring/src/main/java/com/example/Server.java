package com.example;

import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** A Spring Security resource server; application.yaml says what a token must be. */
@SpringBootApplication
@RestController
public class Server {
    @Bean
    SecurityFilterChain rules(HttpSecurity http) throws Exception {
        return http
                .authorizeHttpRequests(requests -> requests
                        .requestMatchers("/reports").hasAuthority("SCOPE_read:reports")
                        .anyRequest().denyAll())
                .oauth2ResourceServer(server -> server.jwt(Customizer.withDefaults()))
                .build();
    }

    @GetMapping("/reports")
    Map<String, String> reports(@AuthenticationPrincipal Jwt token) {
        return Map.of("user", token.getSubject());
    }

    public static void main(String[] arguments) {
        SpringApplication.run(Server.class, arguments);
    }
}
